//! Images whose sshd, the container's first process, leaves the namespaces that tasks join.

use spank_docker_e2e::{IMAGE, Lab, compiled};

/// An sshd that answers correctly. When there is a file `GO`, it enters a mount namespace of its own, in a user
/// namespace in which it has all rights; the namespace gets the inode number of the one that it has left.
const SSHD: &str = r#"
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static unsigned long number(const char *name)
{
    struct stat stat_;
    return stat(name, &stat_) ? 0 : stat_.st_ino;
}

/* Takes the number of the container's mount namespace for one of its own: of the free numbers the lowest is given. */
static void recycle(void)
{
    unsigned long wanted = number("/proc/self/ns/mnt");
    volatile unsigned long *got = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (unshare(CLONE_NEWUSER) || unshare(CLONE_NEWNS))
        return;
    for (int fillers = 0; fillers < 2000 && number("/proc/self/ns/mnt") != wanted; fillers++) {
        pid_t filler;
        *got = 0;
        if ((filler = fork()) == 0) {
            unshare(CLONE_NEWUTS);
            *got = number("/proc/self/ns/uts");
            for (;;)
                pause();
        }
        while (!*got)
            usleep(100);
        if (*got == wanted) {
            kill(filler, SIGKILL);
            waitpid(filler, 0, 0);
            for (int turn = 0; turn < 50 && number("/proc/self/ns/mnt") != wanted; turn++) {
                usleep(20000);
                unshare(CLONE_NEWNS);
            }
        }
    }
}

int main(void)
{
    char line[512], token[256] = "";
    int port = 0, one = 1, done = 0, listener = socket(AF_INET, SOCK_STREAM, 0);
    FILE *file = fopen("/run/spank-docker/sshd_config", "r");
    while (fgets(line, sizeof line, file))
        if (!sscanf(line, "Port %d", &port))
            sscanf(line, "VersionAddendum %255s", token);
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port) };
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    bind(listener, (void *)&address, sizeof address);
    listen(listener, 100);
    for (;;) {
        struct pollfd waiting = { listener, POLLIN };
        if (poll(&waiting, 1, 100) == 1) {
            int client = accept(listener, 0, 0);
            dprintf(client, "SSH-2.0-x %s\r\n", token);
            close(client);
        }
        if (!done && access("GO", F_OK) == 0) {
            recycle();
            done = 1;
            creat("DONE", 0644);
        }
    }
}
"#;

/// Root would join it, and create files and mounts in it, while the user controls what paths mean there.
#[test]
fn namespace_that_a_user_has_made_is_not_joined_whatever_its_number() {
    let lab = Lab::get();
    let (alice, n3) = (lab.alice(), lab.node("n3"));
    let [go, done] = ["go", "done"].map(|name| format!("{}/{name}", alice.directory()));
    let program = compiled(&SSHD.replace("GO", &go).replace("DONE", &done));
    let built = n3.build("own/leaving", IMAGE, "COPY program /usr/sbin/sshd", program);
    // Another process that makes a namespace at that moment may take the number.
    for _ in 0..5 {
        alice.command("rm -f go done end").run().success();
        let options = format!("-w n3 --docker-pull=never --docker-script=host --docker-image={}", built.name);
        let script = "echo up; until [ -e done ]; do sleep 0.2; done; srun echo it ran; echo over
            until [ -e end ]; do sleep 0.2; done";
        let job = alice.submit(&options, script);
        job.wait_for_line("up");
        let recorded = format!("grep -o '\"mount\":[0-9]*' /run/spank-docker/{}/state.json", job.id);
        let recorded = n3.sh(&recorded).success().stdout;
        alice.command("touch go").run().success();
        job.wait_for_line("over");
        let first = n3.first_process(&format!("docker_{}", job.id));
        let number = n3.sh(&format!("stat -Lc '\"mount\":%i' /proc/{first}/ns/mnt")).success().stdout;
        alice.command("touch end").run().success();
        let job = job.wait();
        assert!(!job.output.contains("it ran"), "{job}");
        if number == recorded {
            let line = format!(
                "n3: the container of job {} is not in the namespaces that it was started in: its sshd has created its own; use an image whose sshd does not",
                job.id
            );
            assert_eq!(job.reported(), [line], "{job}");
            return lab.assert_clean();
        }
    }
    panic!("its number was not given again");
}
