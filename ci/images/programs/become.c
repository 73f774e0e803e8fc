/* What an attacker would put into an image: becomes root by whatever the file
 * grants (the setuid bit, or the capability cap_setuid), then is a shell.
 * Exits 1, and says so, where the kernel did not grant it. */
#include <grp.h>
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    (void)argc;
    if (setuid(0) != 0 || geteuid() != 0) {
        fprintf(stderr, "become: still uid %d\n", (int)geteuid());
        return 1;
    }
    argv[0] = "sh";
    execv("/bin/sh", argv);
    perror("become: /bin/sh");
    return 1;
}
