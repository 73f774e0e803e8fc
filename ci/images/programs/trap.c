/* A library that an image would like to see loaded by whatever runs in it as
 * root: as a name service (it has none), by LD_PRELOAD. Notes who loaded it. */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

__attribute__((constructor)) static void sprung(void)
{
    char name[32] = "?";
    int fd = open("/proc/self/comm", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        ssize_t length = read(fd, name, sizeof name - 1);
        if (length > 0)
            name[length - 1] = '\0';
        close(fd);
    }
    /* Never creates it: the image has it, for all to write. */
    fd = open("/opt/evil/sprung", O_WRONLY | O_APPEND | O_CLOEXEC);
    if (fd >= 0) {
        dprintf(fd, "library %d %d %s\n", (int)getuid(), (int)geteuid(), name);
        close(fd);
    }
}
