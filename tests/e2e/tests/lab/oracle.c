/* What the kernel shows a process of itself: `oracle NAME [PROGRAM ARGUMENT...]` writes it to NAME.HOSTNAME, a line
 * FIELD=VALUE each, and executes PROGRAM. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

extern char **environ;

static char buffer[1 << 16];

static const char *file_line(const char *path) {
    FILE *file = fopen(path, "re");
    if (!file) return strerrorname_np(errno);
    size_t length = fread(buffer, 1, sizeof buffer - 1, file);
    fclose(file);
    while (length && buffer[length - 1] == '\n') length--;
    buffer[length] = 0;
    return buffer;
}

static const char *link_of(const char *path) {
    ssize_t length = readlink(path, buffer, sizeof buffer - 1);
    if (length < 0) return strerrorname_np(errno);
    buffer[length] = 0;
    return buffer;
}

/* Of /proc/self/status, whose lines are NAME:<tab>VALUE. */
static void status(FILE *out) {
    static const char *names[] = {"Umask", "Uid", "Gid", "Groups", "SigBlk", "SigIgn", "SigCgt", "CapInh", "CapPrm",
                                  "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters",
                                  "Speculation_Store_Bypass", "SpeculationIndirectBranch", "THP_enabled",
                                  "Cpus_allowed_list", "Mems_allowed_list"};
    FILE *file = fopen("/proc/self/status", "re");
    while (file && fgets(buffer, sizeof buffer, file)) {
        char *value = strchr(buffer, ':');
        buffer[strcspn(buffer, "\n")] = 0;
        if (!value) continue;
        *value++ = 0;
        for (size_t at = 0; at < sizeof names / sizeof *names; at++)
            if (!strcmp(buffer, names[at])) fprintf(out, "status.%s=%s\n", buffer, value + strspn(value, "\t "));
    }
    if (file) fclose(file);
}

static void limits(FILE *out) {
    static const char *names[] = {"cpu", "fsize", "data", "stack", "core", "rss", "nproc", "nofile", "memlock", "as",
                                  "locks", "sigpending", "msgqueue", "nice", "rtprio", "rttime"};
    for (int at = 0; at < RLIM_NLIMITS; at++) {
        struct rlimit limit;
        if (!getrlimit(at, &limit))
            fprintf(out, "limit.%s=%lld:%lld\n", names[at], (long long)limit.rlim_cur, (long long)limit.rlim_max);
    }
}

static const char *kind(mode_t mode) {
    switch (mode & S_IFMT) {
    case S_IFREG: return "file";
    case S_IFDIR: return "directory";
    case S_IFCHR: return "device";
    case S_IFIFO: return "pipe";
    case S_IFSOCK: return "socket";
    default: return "other";
    }
}

static void descriptors(FILE *out) {
    for (int at = 0; at < 1 << 16; at++) {
        struct stat about;
        if (fstat(at, &about)) continue;
        char path[32];
        snprintf(path, sizeof path, "/proc/self/fd/%d", at);
        int flags = fcntl(at, F_GETFL);
        fprintf(out, "descriptor.%d=%s %s%s%s %s\n", at, kind(about.st_mode),
                (flags & O_ACCMODE) == O_RDONLY ? "r" : (flags & O_ACCMODE) == O_WRONLY ? "w" : "rw",
                flags & O_APPEND ? " append" : "", flags & O_NONBLOCK ? " nonblock" : "",
                S_ISREG(about.st_mode) || S_ISCHR(about.st_mode) || S_ISDIR(about.st_mode) ? link_of(path) : "");
    }
}

static void keyring(FILE *out, const char *name, int which) {
    long id = syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, which, 0);
    if (id < 0) {
        fprintf(out, "keyring.%s=%s\n", name, strerrorname_np(errno));
        return;
    }
    long length = syscall(SYS_keyctl, KEYCTL_DESCRIBE, which, buffer, sizeof buffer - 1);
    fprintf(out, "keyring.%s=%s\n", name, length < 0 ? strerrorname_np(errno) : buffer);
}

static void number(FILE *out, const char *name, long value) {
    if (value < 0)
        fprintf(out, "%s=%s\n", name, strerrorname_np(errno));
    else
        fprintf(out, "%s=%ld\n", name, value);
}

int main(int count, char **arguments) {
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    if (count < 2 || !out) return 2;
    descriptors(out);
    status(out);
    limits(out);
    static const char *spaces[] = {"cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "time",
                                   "time_for_children", "user", "uts"};
    for (size_t at = 0; at < sizeof spaces / sizeof *spaces; at++) {
        char path[64];
        snprintf(path, sizeof path, "/proc/self/ns/%s", spaces[at]);
        fprintf(out, "namespace.%s=%s\n", spaces[at], link_of(path));
    }
    FILE *cgroups = fopen("/proc/self/cgroup", "re");
    while (cgroups && fgets(buffer, sizeof buffer, cgroups)) {
        char *name = strchr(buffer, ':'), *path = name ? strchr(name + 1, ':') : NULL;
        if (!path) continue;
        *path++ = 0;
        char *label = strchr(name, '=');
        fprintf(out, "cgroup.%s=%s", label ? label + 1 : name + 1, path);
    }
    if (cgroups) fclose(cgroups);
    fprintf(out, "oom_score_adj=%s\n", file_line("/proc/self/oom_score_adj"));
    fprintf(out, "coredump_filter=%s\n", file_line("/proc/self/coredump_filter"));
    fprintf(out, "loginuid=%s\n", file_line("/proc/self/loginuid"));
    fprintf(out, "security_label=%s\n", file_line("/proc/self/attr/current"));
    errno = 0;
    fprintf(out, "nice=%d\n", getpriority(PRIO_PROCESS, 0));
    struct sched_param parameters = {0};
    sched_getparam(0, &parameters);
    fprintf(out, "scheduler=%d %d\n", sched_getscheduler(0), parameters.sched_priority);
    number(out, "io_priority", syscall(SYS_ioprio_get, 1, 0));
    number(out, "personality", personality(0xffffffff));
    number(out, "dumpable", prctl(PR_GET_DUMPABLE));
    number(out, "keep_capabilities", prctl(PR_GET_KEEPCAPS));
    number(out, "securebits", prctl(PR_GET_SECUREBITS));
    number(out, "timer_slack", prctl(PR_GET_TIMERSLACK));
    number(out, "thp_disable", prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0));
    number(out, "mce_kill", prctl(PR_MCE_KILL_GET, 0, 0, 0, 0));
    int death = 0, reaper = 0, clock = 0;
    prctl(PR_GET_PDEATHSIG, &death);
    prctl(PR_GET_CHILD_SUBREAPER, &reaper);
    prctl(PR_GET_TSC, &clock);
    fprintf(out, "parent_death_signal=%d\nchild_subreaper=%d\ntsc=%d\n", death, reaper, clock);
    keyring(out, "session", KEY_SPEC_SESSION_KEYRING);
    fprintf(out, "session_leader=%d\n", getsid(0) == getpid());
    fprintf(out, "group_leader=%d\n", getpgrp() == getpid());
    int terminal = open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);
    fprintf(out, "terminal=%s\n", terminal < 0 ? strerrorname_np(errno) : "yes");
    if (terminal >= 0) close(terminal);
    fprintf(out, "directory=%s\n", link_of("/proc/self/cwd"));
    fprintf(out, "root=%s\n", link_of("/proc/self/root"));
    struct stat root = {0};
    stat("/", &root);
    fprintf(out, "root_inode=%lu %lu\n", (unsigned long)root.st_dev, (unsigned long)root.st_ino);
    for (char **entry = environ; *entry; entry++) {
        fputc('$', out);
        for (char *byte = *entry; *byte; byte++) fputs(*byte == '\n' ? "\\n" : (char[]){*byte, 0}, out);
        fputc('\n', out);
    }
    fclose(out);
    struct utsname names;
    uname(&names);
    char path[4096];
    snprintf(path, sizeof path, "%s.%s", arguments[1], names.nodename);
    mode_t mask = umask(0);
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    umask(mask);
    if (file < 0 || write(file, text, length) != (ssize_t)length) return 3;
    close(file);
    if (count > 2) execvp(arguments[2], arguments + 2);
    return count > 2 ? 4 : 0;
}
