/* Who somebody is to the C library: user, home and groups, by name. */
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <unistd.h>

int main(void)
{
    gid_t groups[NGROUPS_MAX];
    int count = getgroups(NGROUPS_MAX, groups);
    struct passwd *user = getpwuid(getuid());

    printf("%s %s", user ? user->pw_name : "?", user ? user->pw_dir : "?");
    for (int i = 0; i < count; i++) {
        struct group *group = getgrgid(groups[i]);
        printf(" %s", group ? group->gr_name : "?");
    }
    printf("\n");
    return 0;
}
