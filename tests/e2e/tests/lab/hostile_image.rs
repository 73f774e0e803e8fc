//! Images that were made to break out, to deceive, or to take a node out of service.
//!
//! One job runs an image that is full of traps (ci/images/hostile); each test looks at some of them. Images that must be
//! refused are built on a node, from a few lines each.

use std::sync::LazyLock;

use spank_docker_e2e::{Built, IMAGE, Lab, Outcome, View, image, no_sshd, view};

/// In the PATH of the hostile image is nothing but its own.
const PROBE: &str = r#"
echo "path: $PATH"
PATH=/usr/bin:/bin
for name in USER HOME SLURM_JOB_ID SLURM_JOB_UID SLURM_JOB_DOCKER_IMAGE SLURM_JOB_DOCKER_PORT SLURM_JOB_DOCKER_HOSTFILE \
    OMPI_MCA_plm_rsh_agent HYDRA_LAUNCHER_EXEC SLURM_DOCKER_IMAGE SPANK_DOCKER; do
    eval "echo \"$name: \${$name-unset}\""
done
echo "id: $(id -u) $(id -un)"
echo "pause: $(stat -c '%a %U %s' /run/spank-docker/pause)"
echo "session: $(head -n 2 /run/spank-docker/session | tail -n 1)"
echo "root: $(ls / | grep -c spank)"
echo "sprung: $(sort -u /opt/evil/sprung | tr '\n' ';')"
"#;

struct Views {
    job: u32,
    labels: String,
    health: String,
    task: View,
    ssh: View,
}

static VIEWS: LazyLock<Views> = LazyLock::new(|| {
    let lab = Lab::get();
    let alice = lab.alice();
    let directory = alice.directory();
    alice.write("probe", PROBE);
    let script = "srun /bin/sh ./probe >task; srun /usr/bin/ssh n1 \"cd $PWD && . ./probe\" >ssh
        echo up; until [ -e done ]; do sleep 0.2; done";
    let options = format!("-w n1 --docker-script=host --docker-image={}", image("hostile"));
    let job = alice.submit(&options, script);
    job.wait_for_line("up");
    let inspect = |format: &str| {
        let inspect = format!("docker inspect --format '{format}' docker_{}", job.id);
        lab.node("n1").sh(&inspect).success().stdout
    };
    let labels = inspect("{{json .Config.Labels}}");
    let health = inspect("{{.Config.Healthcheck.Test}} {{json .State.Health}}");
    let seen = |name: &str| view(&lab.node("n1").run(&format!("cat {directory}/{name}")).success().stdout);
    let (task, ssh) = (seen("task"), seen("ssh"));
    alice.command("touch done").run().success();
    let id = job.wait().completed().id;
    lab.assert_clean();
    Views { job: id, labels, health, task, ssh }
});

fn both() -> [(&'static str, &'static View); 2] {
    [("task", &VIEWS.task), ("ssh", &VIEWS.ssh)]
}

#[test]
fn nothing_of_a_hostile_image_runs_as_root_or_before_its_container_is_safe() {
    for (place, view) in both() {
        let sprung: Vec<_> = view["sprung"].split(';').filter(|line| !line.is_empty()).collect();
        // The traps work: a library of the image is in what the user runs, as the image says.
        assert!(sprung.contains(&"library 5001 5001 id"), "{place}: {sprung:#?}");
        for line in sprung {
            assert!(line.starts_with("library 5001 5001 "), "{place}: {line}");
            assert!(!line.contains("slurm") && !line.contains("runc"), "{place}: {line}");
        }
    }
}

/// The engine would start a program of the image in the container every second.
#[test]
fn health_check_of_an_image_is_off() {
    assert_eq!(VIEWS.health.trim(), "[NONE] null");
}

#[test]
fn volume_behind_a_link_does_not_cover_our_directory() {
    for (place, view) in both() {
        assert!(view["pause"].starts_with("711 root "), "{place}: {}", view["pause"]);
        assert!(view["session"].contains("Written by spank-docker"), "{place}: {}", view["session"]);
        // The name by which it was entered is gone.
        assert_eq!(view["root"], "0", "{place}");
    }
}

#[test]
fn variables_of_an_image_do_not_pass_for_slurms_or_ours() {
    let job = VIEWS.job.to_string();
    let hostile = image("hostile");
    for (place, view) in both() {
        let expected = [
            ("id", "5001 alice"),
            ("USER", "alice"),
            ("HOME", "/home/alice"),
            ("SLURM_JOB_DOCKER_IMAGE", &hostile),
            ("SLURM_JOB_DOCKER_HOSTFILE", "/run/spank-docker/hostfile"),
            ("OMPI_MCA_plm_rsh_agent", "/run/spank-docker/ssh"),
            ("HYDRA_LAUNCHER_EXEC", "/run/spank-docker/ssh"),
            ("SLURM_DOCKER_IMAGE", "unset"),
            ("SPANK_DOCKER", "unset"),
        ];
        for (name, value) in expected {
            assert_eq!(view[name], value, "{name} in {place}");
        }
        assert_ne!(view["SLURM_JOB_DOCKER_PORT"], "22", "{place}");
        assert!(view["path"].contains("/opt/evil/bin"), "{place}: {}", view["path"]);
    }
    assert_eq!(VIEWS.task["SLURM_JOB_ID"], job);
    assert_eq!(VIEWS.task["SLURM_JOB_UID"], "5001");
    assert_eq!(VIEWS.ssh["SLURM_JOB_ID"], job);
}

#[test]
fn labels_of_an_image_do_not_pass_for_ours() {
    let labels = &VIEWS.labels;
    for label in
        [format!(r#""spank-docker.job":"{}""#, VIEWS.job), r#""spank-docker.user":"alice""#.to_owned()]
    {
        assert!(labels.contains(&label), "{labels}");
    }
    assert!(!labels.contains("evil"), "{labels}");
}

#[test]
fn batch_script_is_not_attached_through_a_link_to_the_host() {
    let lab = Lab::get();
    let hostile = image("hostile");
    let job =
        lab.alice().submit(&format!("-w n1 --docker-image={hostile}"), "/bin/echo it ran").wait().failed();
    let script = format!("/var/lib/slurm/slurmd/job{:05}/slurm_script", job.id);
    let line =
        format!("n1: cannot mount the batch script '{script}' into the container of image '{hostile}'");
    assert_eq!(job.ours(), [line], "{job}");
    assert!(!job.output.contains("it ran"), "{job}");
    lab.assert_clean();
}

/// A task that fails when it is in the container already does not look at our records any more: their path leads to the
/// image's. Here it says that the user has been told.
#[test]
fn image_with_records_of_its_own_does_not_silence_a_task_that_fails_in_it() {
    const BATCH_STEP: u32 = 0xffff_fffb;
    let lab = Lab::alone();
    let alice = lab.alice();
    let remove = lab.node("n1").command("rm -rf /opt/state");
    lab.repair_with(remove.clone());
    lab.with_arguments("n1", "memlock=inherit state_dir=/opt/state", || {
        let name = "registry:5000/built/records";
        let job =
            alice.submit(&format!("--hold -w n1 --docker-pull=never --docker-image={name}"), "echo it ran");
        let lines = format!(
            "RUN mkdir -p /opt/state/{0} && touch /opt/state/{0}/told.{BATCH_STEP} && touch /var/lib/slurm",
            job.id
        );
        let image = build(&lab, "records", &lines);
        assert_eq!(image.name, name);
        alice.command(&format!("scontrol release {}", job.id)).run().success();
        let job = job.wait().failed();
        let script = format!("/var/lib/slurm/slurmd/job{:05}/slurm_script", job.id);
        let line =
            format!("n1: cannot mount the batch script '{script}' into the container of image '{name}'");
        assert_eq!(job.ours(), [line], "{job}");
        assert!(!job.output.contains("it ran"), "{job}");
    });
    remove.run().success();
    lab.assert_empty();
}

/// The usual image with these lines added, on n1 only.
fn build(lab: &Lab, name: &str, lines: &str) -> Built {
    lab.node("n1").build(&format!("registry:5000/built/{name}"), IMAGE, lines, "")
}

fn run(lab: &Lab, image: &Built, command: &str) -> Outcome {
    let words = format!("-w n1 --docker-pull=never --docker-image={} {command}", image.name);
    lab.alice().srun(&words).run()
}

/// Each fails its job with one line, at once, and drains no node.
#[test]
fn images_that_would_lead_root_astray_are_refused() {
    const NO_FILE: &str = "is not a regular file of up to 64 MiB: make it one, or leave it out";
    let lab = Lab::get();
    let refused = |name: &str, lines: &str, line: &str| {
        let image = build(&lab, name, lines);
        let outcome = run(&lab, &image, "echo it ran").failure();
        outcome.said(&[&format!("n1: image '{}': {line}", image.name)]).printed(&[]);
    };
    refused("fifo", "RUN rm /etc/passwd && mkfifo -m 666 /etc/passwd", &format!("'/etc/passwd' {NO_FILE}"));
    refused("folder", "RUN rm /etc/group && mkdir /etc/group", &format!("'/etc/group' {NO_FILE}"));
    refused("device", "RUN rm /etc/group && mknod /etc/group c 1 5", &format!("'/etc/group' {NO_FILE}"));
    refused("shadow", "RUN ln -sf /proc/1/root/etc/shadow /etc/passwd", &format!("'/etc/passwd' {NO_FILE}"));
    refused("loop", "RUN rm /etc/group && ln -s group /etc/group", &format!("'/etc/group' {NO_FILE}"));
    refused("huge", "RUN truncate -s 65M /etc/group", &format!("'/etc/group' {NO_FILE}"));
    refused(
        "root-self",
        "RUN ln -sf /proc/self/root/etc/shadow /etc/group",
        &format!("'/etc/group' {NO_FILE}"),
    );
    refused("run", "RUN rm -rf /run && ln -s /proc/1/root/tmp /run", "cannot mount on '/run/spank-docker'");
    refused(
        "config",
        "RUN rm /etc/ssh/ssh_config && mkdir /etc/ssh/ssh_config",
        "cannot mount on '/etc/ssh/ssh_config': it is a directory",
    );
    refused(
        "dev",
        "RUN mkdir -p /srv/a && ln -s /dev /srv/a/b && cp -a /dev/null /opt/\nVOLUME /srv/a/b",
        "has its own '/dev' in place of the system's: build it without a volume there",
    );
    lab.assert_clean();
}

/// In the image's own files, on the way to what we put into the container: followed, each would lead to the host. (A link
/// at /etc the engine replaces by a directory.)
#[test]
fn links_on_the_way_to_our_places_lead_nowhere() {
    const HOST: &str = "/proc/1/root/tmp/of-the-host";
    const HOME: &str =
        "working directory or home: '/home/alice' cannot be mounted on: Permission denied (os error 13)";
    let lab = Lab::get();
    let (alice, n1) = (lab.alice(), lab.node("n1"));
    alice.write("probe", "touch /home/alice/made /tmp/made /srv/link/volume/made 2>/dev/null; echo it ran");
    let remove = n1.command("rm -rf /tmp/of-the-host");
    lab.repair_with(remove.clone());
    // Not even what the user could make there.
    n1.sh("install -d -m 0777 /tmp/of-the-host").success();
    for (name, lines, refusal) in [
        (
            "link-ssh",
            format!("RUN rm -r /etc/ssh && ln -s {HOST} /etc/ssh"),
            Some(
                "image 'registry:5000/built/link-ssh': cannot mount on '/etc/ssh/ssh_config': it cannot be looked up",
            ),
        ),
        (
            "link-config",
            "RUN ln -sf /proc/1/root/etc/shadow /etc/ssh/ssh_config".to_owned(),
            Some(
                "image 'registry:5000/built/link-config': cannot mount on '/etc/ssh/ssh_config': it cannot be looked up",
            ),
        ),
        ("link-home", format!("RUN rm -r /home && ln -s {HOST} /home"), Some(HOME)),
        ("link-alice", format!("RUN ln -s {HOST} /home/alice"), Some(HOME)),
        ("link-tmp", format!("RUN rm -rf /tmp && ln -s {HOST} /tmp"), None),
        ("link-volume", format!("RUN ln -s {HOST} /srv/link\nVOLUME /srv/link/volume"), None),
    ] {
        let image = build(&lab, name, &lines);
        let outcome = run(&lab, &image, "sh ./probe");
        match refusal {
            Some(line) => outcome.failure().said(&[&format!("n1: {line}")]).printed(&[]),
            None => outcome.success().printed(&["it ran"]),
        };
        let there = n1.run("find /tmp/of-the-host -mindepth 1").success();
        assert_eq!(there.stdout, "", "{name}");
    }
    remove.run().success();
    lab.assert_clean();
}

/// What is no program that all may run is no sshd: tasks run, and the user is told.
#[test]
fn sshd_of_an_image_that_is_no_program_counts_as_none() {
    let lab = Lab::get();
    let sshd = "/usr/sbin/sshd";
    for (name, lines) in [
        ("sshd-link", format!("RUN rm {sshd} && ln -s /proc/1/root/usr/sbin/sshd {sshd}")),
        ("sshd-self", format!("RUN rm {sshd} && ln -s /proc/self/root/proc/1/root/usr/sbin/sshd {sshd}")),
        ("sshd-folder", format!("RUN rm {sshd} && mkdir {sshd}")),
        ("sshd-fifo", format!("RUN rm {sshd} && mkfifo -m 777 {sshd}")),
        ("sshd-device", format!("RUN rm {sshd} && mknod -m 777 {sshd} c 1 5")),
        ("sshd-plain", format!("RUN chmod 644 {sshd}")),
    ] {
        let image = build(&lab, name, &lines);
        let line = format!("n1: warning: {}", no_sshd(&image.name));
        run(&lab, &image, "hostname").success().printed(&["n1"]).said(&[&line]);
    }
    for (name, lines) in [
        ("sshd-random", format!("RUN head -c 100000 /dev/urandom >{sshd}")),
        (
            "sshd-huge",
            format!("RUN truncate -s 1G {sshd}.new && chmod 755 {sshd}.new && mv {sshd}.new {sshd}"),
        ),
    ] {
        let image = build(&lab, name, &lines);
        let line =
            format!("n1: image '{}': its sshd ended at once: cannot execute the image's sshd", image.name);
        run(&lab, &image, "echo it ran").failure().printed(&[]).said(&[&line]);
    }
    lab.assert_clean();
}

/// Slurm makes TMPDIR in the task: as the user, so that a link out of the container leads nowhere.
#[test]
fn tmpdir_of_an_image_is_not_made_through_a_link_to_the_host() {
    let lab = Lab::get();
    let lines = "RUN ln -s /proc/1/root/root /srv/root && ln -s /proc/1/root/var/lib/docker /srv/docker
ENV TMPDIR=/srv/root/evil";
    let image = build(&lab, "tmpdir", lines);
    for directory in ["/srv/root/evil", "/srv/docker/evil"] {
        let words = format!("--export=ALL,TMPDIR={directory} printenv SLURM_JOB_DOCKER_IMAGE");
        run(&lab, &image, &words).success().printed(&[&image.name]);
    }
    lab.node("n1").sh("! ls -d /root/evil /var/lib/docker/evil").success();
    lab.assert_clean();
}

#[test]
fn accounts_that_are_no_text_count_as_none() {
    let lab = Lab::get();
    let lines = "RUN head -c 50000 /dev/zero | tr '\\0' '\\377' >/etc/group && printf '\\377\\0:x:\\n:::::::' >/etc/passwd";
    let image = build(&lab, "binary", lines);
    let outcome = run(&lab, &image, "id").success();
    outcome.printed(&["uid=5001(alice) gid=5001(alice) groups=5001(alice),6001(physics),6002(gpuusers)"]);
    lab.assert_clean();
}

#[test]
fn sshd_that_is_none_fails_the_job_with_what_it_says() {
    const SSHD: &str = "#!/usr/bin/perl\\nuse IO::Socket::INET;\\nopen F, q(/run/spank-docker/sshd_config); my ($port) = join(q(), <F>) =~ /^Port (.*)/m;\\nmy $s = IO::Socket::INET->new(Listen => 5, LocalPort => $port, ReuseAddr => 1);\\nwhile (my $c = $s->accept) { print $c qq(SSH-2.0-impostor token\\\\r\\\\n); close $c }\\n";
    let lab = Lab::get();
    let image = build(&lab, "impostor", &format!("RUN printf '{SSHD}' >/usr/sbin/sshd"));
    let outcome = run(&lab, &image, "echo it ran").failure();
    let line =
        format!("n1: image '{}': its sshd does not work: answered 'SSH-2.0-impostor token'", image.name);
    outcome.said(&[&line]).printed(&[]);
    lab.assert_clean();
}
