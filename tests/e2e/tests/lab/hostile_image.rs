//! Images that try to break out, to deceive, or to take a node out of service.
//!
//! One job runs an image that is full of traps (ci/images/hostile); each test examines some of them. Images
//! that must be refused are built on a node, each from a few lines.

use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use spank_docker_e2e::{Built, IMAGE, Lab, Outcome, View, image, view};

/// The PATH of the hostile image contains only its own programs.
const PROBE: &str = r#"
echo "path: $PATH"
PATH=/usr/bin:/bin
for name in USER LOGNAME HOME SHELL SLURM_JOB_ID SLURM_JOB_UID SLURM_JOB_DOCKER_IMAGE SLURM_JOB_DOCKER_PORT SLURM_JOB_DOCKER_HOSTFILE \
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
    /// The image in which the batch script ran.
    entered: String,
    labels: String,
    health: String,
    environment: String,
    /// The time from the end of the script to the end of the container.
    end: Duration,
    places: [(&'static str, View); 3],
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
    // The image prevents batch scripts from being mounted; what root does during the build does not count.
    let lines = "RUN /bin/rm /var/lib/slurm; : >/opt/evil/sprung";
    // Each test may be a process of its own, which removes its image while another one's job starts.
    let name = format!("registry:5000/built/entered:{}", std::process::id());
    let entered = lab.node("n1").build(&name, &image("hostile"), lines, "");
    let options = format!("-w n1 --docker-pull=never --docker-image={}", entered.name);
    let script = alice.submit(&options, &format!("cd {directory}; . ./probe"));
    job.wait_for_line("up");
    let container = format!("docker_{}", job.id);
    let inspect = |format: &str| {
        let inspect = format!("docker inspect --format '{format}' {container}");
        lab.node("n1").sh(&inspect).success().stdout
    };
    let labels = inspect("{{json .Config.Labels}}");
    let health = inspect("{{.Config.Healthcheck.Test}} {{json .State.Health}}");
    let environment = inspect("{{range .Config.Env}}{{println .}}{{end}}");
    let seen = |name: &str| view(&lab.node("n1").run(&format!("cat {directory}/{name}")).success().stdout);
    let (task, ssh) = (seen("task"), seen("ssh"));
    let script = view(&script.wait().completed().output);
    alice.command("touch done").run().success();
    let began = Instant::now();
    let inspect = format!("docker inspect {container}");
    lab.poll(|| (lab.node("n1").run(&inspect).code != Some(0)).then_some(())).expect("its end");
    let end = began.elapsed();
    let id = job.wait().completed().id;
    lab.assert_clean();
    Views {
        job: id,
        entered: name,
        labels,
        health,
        environment,
        end,
        places: [("task", task), ("ssh", ssh), ("script", script)],
    }
});

#[test]
fn nothing_of_a_hostile_image_runs_as_root_or_before_its_container_is_safe() {
    for (place, view) in &VIEWS.places {
        let sprung: Vec<_> = view["sprung"].split(';').filter(|line| !line.is_empty()).collect();
        // The traps work: a library of the image is loaded into what the user runs, as the image requests.
        assert!(sprung.contains(&"library 5001 5001 id"), "{place}: {sprung:#?}");
        for line in sprung {
            assert!(line.starts_with("library 5001 5001 "), "{place}: {line}");
            let root = ["slurmd", "slurmstepd", "runc"];
            assert!(!root.iter().any(|name| line.contains(name)), "{place}: {line}");
        }
    }
}

/// The engine would run a program of the image in the container every second.
#[test]
fn health_check_of_an_image_is_off() {
    let health = VIEWS.health.trim();
    // For a disabled check Podman reports that it has no result.
    let nothing = ["null", r#"{"Status":"","FailingStreak":0,"Log":null}"#];
    assert!(nothing.iter().any(|nothing| health == format!("[NONE] {nothing}")), "{health}");
}

#[test]
fn files_of_the_image_at_the_plugins_paths_are_covered() {
    for (place, view) in &VIEWS.places {
        assert!(view["pause"].starts_with("711 root "), "{place}: {}", view["pause"]);
        assert!(view["session"].contains("Written by spank-docker"), "{place}: {}", view["session"]);
        // The random name by which the container was entered is gone.
        assert_eq!(view["root"], "0", "{place}");
    }
}

/// The engine's hooks run as root, with the container's variables: LD_PRELOAD of an image would load a library
/// into them.
#[test]
fn variables_of_an_image_do_not_reach_the_engine() {
    let lines = || VIEWS.environment.lines().filter(|line| !line.is_empty());
    assert!(lines().any(|line| line.trim_end_matches('=') == "LD_PRELOAD"), "{}", VIEWS.environment);
    let values: Vec<_> =
        lines().filter_map(|line| line.split_once('=')).filter(|pair| !pair.1.is_empty()).collect();
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let podmans = [("container", "podman"), ("HOSTNAME", "n1")];
    let known = [("PATH", path), ("NVIDIA_VISIBLE_DEVICES", "void"), podmans[0], podmans[1]];
    assert!(values.iter().all(|value| known.contains(value)), "{values:?}");
}

/// Engines mount it over the plugin's directory, after all mounts with shorter paths.
#[test]
fn volume_behind_a_link_does_not_cover_the_plugins_directory() {
    let lab = Lab::get();
    let lines = "RUN mkdir -p /run/spank-docker /srv/a && ln -s /run/spank-docker /srv/a/volume\nVOLUME /srv/a/volume";
    let image = build(&lab, "covering", lines);
    let outcome = run(&lab, &image, "stat --format=%a:%U /run/spank-docker/pause");
    match closed(&lab) {
        None => outcome.success().printed(&["711:root"]),
        Some(line) => outcome.refused().said(&[&format!("n1: image '{}': {line}", image.name)]).printed(&[]),
    };
    lab.assert_clean();
}

/// The message for a volume behind an absolute link, where the engine cannot show the files of such a
/// container.
fn closed(lab: &Lab) -> Option<String> {
    let version = lab.node("n1").run("docker version --format {{.Server.Version}}").success().stdout;
    let major: u32 = version.split('.').next().and_then(|major| major.parse().ok()).expect(&version);
    let line =
        "the engine cannot read its file system: is a VOLUME path a symbolic link? Declare the real path";
    (major >= 28).then(|| line.to_owned())
}

#[test]
fn image_cannot_set_variables_of_slurm_or_the_plugin() {
    let job = VIEWS.job.to_string();
    let hostile = image("hostile");
    for (place, view) in &VIEWS.places {
        let (hostile, expected_job) = match *place {
            "script" => (VIEWS.entered.as_str(), None),
            _ => (hostile.as_str(), Some(job.as_str())),
        };
        let expected = [
            ("id", "5001 alice"),
            ("USER", "alice"),
            ("LOGNAME", "alice"),
            ("HOME", "/home/alice"),
            ("SHELL", "/bin/bash"),
            ("SLURM_JOB_UID", "5001"),
            ("SLURM_JOB_DOCKER_IMAGE", hostile),
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
        assert_ne!(view["SLURM_JOB_ID"], "1", "{place}");
        assert!(expected_job.is_none_or(|job| view["SLURM_JOB_ID"] == job), "{place}");
    }
}

/// The image sets a stop signal without effect: an engine that uses it waits 10 s.
#[test]
fn stop_signal_of_an_image_does_not_delay_its_removal() {
    assert!(VIEWS.end < Duration::from_secs(9), "{:?}", VIEWS.end);
}

#[test]
fn labels_of_an_image_do_not_replace_the_plugins() {
    let labels = &VIEWS.labels;
    for (label, value) in [("job", VIEWS.job.to_string()), ("user", "alice".into()), ("step", String::new())]
    {
        assert!(labels.contains(&format!(r#""spank-docker.{label}":"{value}""#)), "{label}: {labels}");
    }
    assert!(!labels.contains("evil"), "{labels}");
}

/// Programs on a host act on labels of containers: Podman's auto-update, for example, restarts the unit that
/// one names.
#[test]
fn labels_of_an_image_are_not_on_its_container() {
    let lab = Lab::get();
    let lines = "LABEL io.containers.autoupdate=registry PODMAN_SYSTEMD_UNIT=evil.service evil.label=evil";
    let image = build(&lab, "labels", lines);
    let alice = lab.alice();
    let options = format!("-w n1 --docker-pull=never --docker-image={}", image.name);
    let job = alice.submit(&options, "echo up; until [ -e done ]; do sleep 0.1; done");
    job.wait_for_line("up");
    let inspect = format!("docker inspect --format '{{{{json .Config.Labels}}}}' docker_{}", job.id);
    let labels = lab.node("n1").sh(&inspect).success().stdout;
    alice.command("touch done").run().success();
    job.wait().completed();
    for label in [r#""io.containers.autoupdate":"""#, r#""PODMAN_SYSTEMD_UNIT":"""#, r#""evil.label":"""#] {
        assert!(labels.contains(label), "{labels}");
    }
    lab.assert_clean();
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
    assert_eq!(job.reported(), [line], "{job}");
    assert!(!job.output.contains("it ran"), "{job}");
    lab.assert_clean();
}

/// A task that fails after it has entered the container does not use the plugin's records any more: their path
/// leads into the image. Here such a file says that the user has been informed.
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
            "RUN mkdir -p /opt/state/{0} && touch /opt/state/{0}/reported.{BATCH_STEP} && touch /var/lib/slurm",
            job.id
        );
        let image = build(&lab, "records", &lines);
        assert_eq!(image.name, name);
        alice.command(&format!("scontrol release {}", job.id)).run().success();
        let job = job.wait().failed();
        let script = format!("/var/lib/slurm/slurmd/job{:05}/slurm_script", job.id);
        let line =
            format!("n1: cannot mount the batch script '{script}' into the container of image '{name}'");
        assert_eq!(job.reported(), [line], "{job}");
        assert!(!job.output.contains("it ran"), "{job}");
    });
    remove.run().success();
    lab.assert_empty();
}

/// An image of one file with a label of 1.2 MB. Not by a Dockerfile: for a value of this length the builder takes minutes.
const LONG_LABEL: &str = r#"
cd $(mktemp -d) && head -c 1000 /dev/urandom >unique && tar -cf layer.tar unique &&
printf '{"architecture":"%s","os":"linux","config":{"Labels":{"a":"%s"}},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
    $(dpkg --print-architecture) $(head -c 1200000 /dev/zero | tr '\0' x) $(sha256sum layer.tar | cut -c 1-64) >config.json &&
echo '[{"Config":"config.json","RepoTags":["NAME"],"Layers":["layer.tar"]}]' >manifest.json &&
tar -c manifest.json config.json layer.tar | docker load --quiet"#;

const MANY_LABELS: &str = "{ echo FROM IMAGE; echo RUN touch /many-labels; printf LABEL; seq --format ' %040g=1' 800 | tr -d '\\n'; echo; } |
    docker build --quiet --tag NAME -";

/// It would stay in the engine's store, and in each of the engine's lists, although no job can use it.
#[test]
fn image_whose_configuration_is_too_long_is_refused_and_does_not_stay() {
    let lab = Lab::get();
    let (n1, n2, alice) = (lab.node("n1"), lab.node("n2"), lab.alice());
    let cases = [
        (
            "long-label",
            LONG_LABEL,
            "its ENV, LABEL, VOLUME and ENTRYPOINT are larger than 1 MiB together: build it with less",
        ),
        (
            "many-labels",
            MANY_LABELS,
            "the names of its LABELs and its VOLUMEs are larger than 32 KiB together: build it with fewer",
        ),
    ];
    for (name, make, line) in cases {
        let repository = format!("registry:5000/built/{name}");
        let name = format!("{repository}:1");
        let make = make.replace("IMAGE", IMAGE).replace("NAME", &name);
        n2.sh(&format!("{make} && docker push --quiet {name} && docker rmi {name}")).success();
        let run = alice.srun(&format!("-w n1 --docker-image={name} hostname")).run();
        run.failure().said(&[&format!("n1: image '{name}': {line}")]);
        n1.run(&format!("docker image inspect {name}")).failure();
        n1.sh(&format!("! docker images --all --no-trunc --digests | grep {repository}")).success();
    }
    lab.assert_clean();
}

/// Builds the usual image with these lines added, on n1 only.
fn build(lab: &Lab, name: &str, lines: &str) -> Built {
    lab.node("n1").build(&format!("registry:5000/built/{name}"), IMAGE, lines, "")
}

fn run(lab: &Lab, image: &Built, command: &str) -> Outcome {
    let words = format!("-w n1 --docker-pull=never --docker-image={} {command}", image.name);
    lab.alice().srun(&words).run()
}

/// The time for building and running dozens of images, with engines that need seconds for each.
const LONG: Duration = Duration::from_secs(240);
/// A /proc of the image's own, which the container's /proc covers.
const DECOY: &str =
    "RUN mkdir -p /r/proc/1 /r/decoy/tmp && touch /r/decoy/tmp/accounts && ln -s /decoy /r/proc/1/root";
const TO_DECOY: &str = "RUN ln -sf /proc/1/root/tmp/accounts /etc/passwd";
const TWENTY_LINKS: &str =
    "RUN for n in $(seq 20); do ln -s /l$((n-1)) /l$n; done; mv /etc/group /l0; ln -s /l20 /etc/group";

/// Each makes its job fail with one line, and drains no node.
#[test]
fn images_that_would_lead_root_astray_are_refused() {
    let lab = Lab::within(LONG);
    let no_file =
        |path: &str| format!("'{path}' is not a regular file of up to 64 MiB: make it one, or leave it out");
    let (no_passwd, no_group) = (no_file("/etc/passwd"), no_file("/etc/group"));
    let (decoy, no_decoy) =
        (format!("{DECOY}\nFROM {IMAGE}\nCOPY --from=0 /r /\n{TO_DECOY}"), no_passwd.clone());
    let volumes: Vec<_> = (0..257).map(|number| format!("/v/{number}")).collect();
    let many_volumes = format!("VOLUME {}", volumes.join(" "));
    let volume = |path: &str| {
        format!(
            "declares a volume at '{path}', which is reserved for the container's own system: build it without"
        )
    };
    let cases = [
        ("fifo", "RUN rm /etc/passwd && mkfifo -m 666 /etc/passwd", no_passwd.clone()),
        ("fifo-group", "RUN rm /etc/group && mkfifo -m 666 /etc/group", no_group.clone()),
        ("folder", "RUN rm /etc/group && mkdir /etc/group", no_group.clone()),
        ("folder-passwd", "RUN rm /etc/passwd && mkdir /etc/passwd", no_passwd.clone()),
        ("device", "RUN rm /etc/group && mknod /etc/group c 1 5", no_group.clone()),
        ("shadow", "RUN ln -sf /proc/1/root/etc/shadow /etc/passwd", no_passwd.clone()),
        ("loop", "RUN rm /etc/group && ln -s group /etc/group", no_group.clone()),
        ("huge", "RUN truncate -s 65M /etc/group", no_group.clone()),
        ("huge-passwd", "RUN truncate -s 65M /etc/passwd", no_passwd),
        ("root-self", "RUN ln -sf /proc/self/root/etc/shadow /etc/group", no_group.clone()),
        ("up", "RUN ln -sf /proc/1/root/../../../etc/shadow /etc/group", no_group.clone()),
        ("stdout", "RUN rm -rf /dev/stdout; ln -sf /opt/../dev/stdout /etc/group", no_group.clone()),
        ("sys", "RUN ln -sf ../sys/kernel/notes /etc/group", no_group.clone()),
        ("twenty", TWENTY_LINKS, no_group),
        ("decoy", &decoy, no_decoy),
        (
            "run",
            "RUN rm -rf /run && ln -s /proc/1/root/tmp /run",
            "cannot mount on '/run/spank-docker'".to_owned(),
        ),
        (
            "config",
            "RUN rm /etc/ssh/ssh_config && mkdir /etc/ssh/ssh_config",
            "cannot mount on '/etc/ssh/ssh_config': it is a directory".to_owned(),
        ),
        (
            "dev",
            "RUN mkdir -p /srv/a && ln -s /dev /srv/a/b && cp -a /dev/null /opt/\nVOLUME /srv/a/b",
            closed(&lab).unwrap_or_else(|| {
                "has its own '/dev' instead of the system's: build it without a volume there".to_owned()
            }),
        ),
        ("volumes", &many_volumes, "declares 257 volumes: build it with 256 or fewer".to_owned()),
        ("volume-run", "VOLUME /run", volume("/run")),
        ("volume-linked", "VOLUME /var/run", closed(&lab).unwrap_or_else(|| volume("/run"))),
        (
            "run-closed",
            "RUN chmod 700 /run",
            "users cannot enter its '/run': build it with 'chmod 755 / /run'".to_owned(),
        ),
        ("volume-ours", "VOLUME /run/spank-docker/x", volume("/run/spank-docker/x")),
        ("volume-dev", "VOLUME /dev/shm", volume("/dev/shm")),
        ("volume-sys", "VOLUME /sys", volume("/sys")),
        ("volume-up", "VOLUME /srv/../proc/sys", volume("/srv/../proc/sys")),
        ("volume-relative", "VOLUME run/spank-docker", volume("run/spank-docker")),
        ("volume-root", "VOLUME .", volume(".")),
    ];
    let is_podman = lab.is_podman();
    let refused = |(name, lines, line): &(&str, &str, String)| {
        // Podman's builds have no devices, and put a file of their own into /run.
        if is_podman && ["mknod", "cp -a /dev/null", "rm -rf /run"].iter().any(|word| lines.contains(word)) {
            return;
        }
        let image = build(&lab, name, lines);
        let outcome = run(&lab, &image, "echo it ran").refused().printed(&[]);
        // Podman refuses some images itself.
        if is_podman
            && outcome.reported().iter().all(|said| said.contains(": Docker Engine refused to start"))
        {
            return;
        }
        outcome.said(&[&format!("n1: image '{}': {line}", image.name)]);
    };
    at_once(&cases, refused);
    lab.assert_clean();
}

/// Some images are made that way; one name is longer than the first block of an archive.
#[test]
fn accounts_of_an_image_may_be_behind_links() {
    let lab = Lab::get();
    let lines = "RUN d=/opt/$(printf %0120d)/$(printf %0120d) && mkdir -p $d && mv /etc/passwd $d/accounts && ln -s $d/accounts /opt/it \\
        && ln -s ../opt/./it /etc/passwd && grep -q root /etc/passwd";
    let image = build(&lab, "links", lines);
    let outcome = run(&lab, &image, "id -un");
    if lab.is_podman() {
        // This engine does not show links as the image has them.
        outcome.refused().printed(&[]);
    } else {
        outcome.success().printed(&["alice"]);
    }
    lab.assert_clean();
}

/// An engine resolves a group as a name before it takes it as a number, and the names are the image's: a group
/// named "5001" would become alice's. Only sshd and the ENTRYPOINT get their groups from the engine.
#[test]
fn numeric_group_names_of_an_image_are_not_taken_for_group_ids() {
    let lab = Lab::get();
    let names = "5001:x:0: 6001:x:105: 6002:x:42: theirs:x:4242:";
    let numbers = format!("RUN {{ printf '%s\\n' {names}; cat /etc/group; }} >/x && cat /x >/etc/group");
    let write = "#!/bin/sh\nid -G >/tmp/entry\nexec \"$@\"\n";
    let lines = format!("{numbers}\nCOPY program /entry\nENTRYPOINT [\"/entry\"]");
    let image = lab.node("n1").build("registry:5000/built/groups", IMAGE, &lines, write);
    let look =
        "id -G; ssh n1 id -G; cat /tmp/entry; ssh n1 grep -c '^[0-9]*:' /etc/group; grep theirs /etc/group";
    let options = format!("-w n1 --docker-pull=never --docker-entrypoint --docker-image={}", image.name);
    let own = "5001 6001 6002";
    lab.alice().srun(&options).sh(look).run().success().printed(&["0", own, own, own, "theirs:x:4242:"]);
    // With a volume at /etc the engine reads another list.
    let image = build(&lab, "groups-volume", &format!("{numbers}\nVOLUME /etc"));
    let outcome = run(&lab, &image, "id -G");
    if outcome.code == Some(0) {
        // Engine 28.5 reads the list in the volume.
        outcome.printed(&[own]);
    } else {
        let line = "its container has different groups from yours: does the image's /etc/group have lines whose name is a number? Remove them";
        outcome.refused().said(&[&format!("n1: image '{}': {line}", image.name)]).printed(&[]);
    }
    // A group whose name equals its number changes nothing.
    let image = build(&lab, "harmless", "RUN printf '%s\\n' 5001:x:5001: 6001:x:6001: >>/etc/group");
    run(&lab, &image, "ssh n1 id -G").success().printed(&["5001 6001 6002"]);
    lab.assert_clean();
}

/// A runtime that follows the link makes its devices where it leads, as root, on the node.
#[test]
fn devices_of_a_container_are_not_created_through_links_of_its_image() {
    let lab = Lab::within(Duration::from_secs(300));
    let n1 = lab.node("n1");
    let remove = "rm -rf /tmp/of-a-device; docker rmi --force registry:5000/built/linked";
    let remove = n1.command("").sh(remove);
    lab.repair_with(remove.clone());
    // A build has /dev mounted, so the image is made without one.
    let make = format!(
        "set -e; cd $(mktemp -d); mkdir -m 0777 /tmp/of-a-device
         docker image inspect {IMAGE} >/dev/null 2>&1 || docker pull --quiet {IMAGE} >/dev/null
         container=$(docker create --entrypoint sh {IMAGE})
         mkdir root; docker export $container | tar --extract --directory=root --exclude='dev/*'
         docker rm $container >/dev/null; rm -rf root/dev; ln -s /tmp/of-a-device root/dev
         tar --create --directory=root . | docker import - registry:5000/built/linked >/dev/null; rm -rf $PWD"
    );
    n1.command("").sh(&make).run().success();
    let command = "stat --format=%F:%t,%T /dev/. /dev/null";
    let options = format!("-w n1 --docker-pull=never --docker-image=registry:5000/built/linked {command}");
    let outcome = lab.alice().srun(&options).run();
    if lab.is_podman() {
        let line = "n1: image 'registry:5000/built/linked': '/dev' is not a directory: build it with one";
        outcome.refused().said(&[line]).printed(&[]);
    } else {
        outcome.success().printed(&["character special file:1,3", "directory:0,0"]);
    }
    assert_eq!(n1.run("ls -A /tmp/of-a-device").success().stdout, "");
    remove.run().success();
    lab.assert_clean();
}

/// Checks several cases concurrently.
pub(crate) fn at_once<T: Sync>(cases: &[T], check: impl Fn(&T) + Sync) {
    thread::scope(|threads| {
        for some in cases.chunks(cases.len().div_ceil(4)) {
            threads.spawn(|| some.iter().for_each(&check));
        }
    });
}

/// Links in the image's own files, on the path to what the plugin or the engine puts into the container: if
/// they were followed, each would lead to the host. (The engine replaces a link at /etc by a directory.)
#[test]
fn links_on_the_paths_of_the_plugin_lead_nowhere() {
    let lab = Lab::within(LONG);
    let (alice, n1) = (lab.alice(), lab.node("n1"));
    let probe = "touch /home/alice/made /tmp/made /srv/link/volume/made 2>/dev/null; echo it ran";
    let remove = n1.command("rm -rf /tmp/of-the-host");
    lab.repair_with(remove.clone());
    // Not even files that the user could create there.
    n1.sh("install -d -m 0777 /tmp/of-the-host").success();
    let config = |name: &str| {
        Some(format!(
            "image 'registry:5000/built/{name}': cannot mount on '/etc/ssh/ssh_config': it cannot be looked up"
        ))
    };
    // Docker writes these itself, and mounts over the first three.
    let engines = ["hosts", "hostname", "resolv.conf", "mtab"];
    let mut cases = Vec::new();
    for (kind, host, reason) in [
        ("link", "/proc/1/root/tmp/of-the-host", "Permission denied (os error 13)"),
        ("self", "/proc/self/root/tmp/of-the-host", "Too many levels of symbolic links (os error 40)"),
    ] {
        let links: String = engines.iter().map(|name| format!("ln -s {host}/{name} /x/etc/; ")).collect();
        let of = |what: &str, path: &str| format!("{what}: '{path}' cannot be mounted on: {reason}");
        let scratch = Some(of("--docker-readonly", "/tmp"));
        let mount = of("--docker-mounts", "/srv/link/mount");
        let volume = closed(&lab).map(|line| format!("image 'registry:5000/built/{kind}-volume': {line}"));
        for (name, lines, options, refusal) in [
            (
                "ssh",
                format!("RUN rm -r /etc/ssh && ln -s {host} /etc/ssh"),
                "",
                config(&format!("{kind}-ssh")),
            ),
            (
                "config",
                format!("RUN ln -sf {host}/shadow /etc/ssh/ssh_config"),
                "",
                config(&format!("{kind}-config")),
            ),
            ("home", format!("RUN rm -r /home && ln -s {host} /home"), "", None),
            ("alice", format!("RUN ln -s {host} /home/alice"), "", None),
            ("tmp", format!("RUN rm -rf /tmp && ln -s {host} /tmp"), "", None),
            ("scratch", format!("RUN rm -rf /tmp && ln -s {host} /tmp"), "--docker-readonly", scratch),
            (
                "mount",
                format!("RUN ln -s {host} /srv/link"),
                "--docker-mounts=tmpfs:/srv/link/mount",
                Some(mount),
            ),
            ("volume", format!("RUN ln -s {host} /srv/link\nVOLUME /srv/link/volume"), "", volume),
            ("workdir", format!("RUN ln -s {host}/workdir /srv/workdir\nWORKDIR /srv/workdir"), "", None),
            ("shell", format!("RUN ln -sf {host}/bash /bin/bash"), "", None),
            ("engine", format!("RUN mkdir -p /x/etc; {links}\nFROM {IMAGE}\nCOPY --from=0 /x/ /"), "", None),
        ] {
            cases.push((format!("{kind}-{name}"), lines, options, refusal));
        }
    }
    let is_podman = lab.is_podman();
    at_once(&cases, |(name, lines, options, refusal)| {
        let image = build(&lab, name, lines);
        let words = format!("-w n1 --docker-pull=never --docker-image={} {options}", image.name);
        let outcome = alice.srun(&words).sh(probe).run();
        // crun mounts nothing behind such a link: neither a volume nor its own files.
        if is_podman && ["-volume", "-engine"].iter().any(|end| name.ends_with(end)) {
            outcome.refused().printed(&[]);
            return;
        }
        match refusal {
            Some(line) => outcome.refused().said(&[&format!("n1: {line}")]).printed(&[]),
            None => {
                // The home directory, and the working directory below it.
                let left_out =
                    outcome.reported().iter().filter(|line| line.contains(" is left out ")).count();
                assert_eq!(left_out, if name.ends_with("-home") || name.ends_with("-alice") { 2 } else { 0 });
                outcome.success().printed(&["it ran"])
            }
        };
    });
    n1.run("find /tmp/of-the-host -mindepth 1").success().printed(&[]);
    remove.run().success();
    lab.assert_clean();
}

/// Where the image's sshd is not a program that all users may execute, the plugin's own takes its place.
#[test]
fn sshd_of_an_image_that_is_no_program_counts_as_none() {
    let lab = Lab::get();
    let sshd = "/usr/sbin/sshd";
    let cases = [
        ("sshd-link", format!("RUN rm {sshd} && ln -s /proc/1/root/usr/sbin/sshd {sshd}")),
        ("sshd-self", format!("RUN rm {sshd} && ln -s /proc/self/root/proc/1/root/usr/sbin/sshd {sshd}")),
        ("sshd-folder", format!("RUN rm {sshd} && mkdir {sshd}")),
        ("sshd-fifo", format!("RUN rm {sshd} && mkfifo -m 777 {sshd}")),
        ("sshd-device", format!("RUN rm {sshd} && mknod -m 777 {sshd} c 1 5")),
        ("sshd-plain", format!("RUN chmod 644 {sshd}")),
        ("sshd-random", format!("RUN head -c 100000 /dev/urandom >{sshd}")),
        (
            "sshd-huge",
            format!("RUN truncate -s 1G {sshd}.new && chmod 755 {sshd}.new && mv {sshd}.new {sshd}"),
        ),
    ];
    let is_podman = lab.is_podman();
    at_once(&cases, |(name, lines)| {
        // Podman's builds have no devices.
        if is_podman && lines.contains("mknod") {
            return;
        }
        let image = build(&lab, name, lines);
        run(&lab, &image, "hostname").success().printed(&["n1"]).said(&[]);
    });
    lab.assert_clean();
}

/// Each line of it would pass through the engine, which works outside the job's limits.
#[test]
fn sshd_that_writes_without_end_writes_nothing_to_the_engine() {
    let lab = Lab::get();
    let lines = "RUN mv /usr/sbin/sshd /usr/sbin/sshd.real && cp /dev/stdin /usr/sbin/sshd && chmod 755 /usr/sbin/sshd";
    let lines = lines.replace(
        "cp /dev/stdin /usr/sbin/sshd",
        r#"printf '%s\n' '#!/bin/sh' 'while :; do echo x; echo y >&2; done &' 'exec /usr/sbin/sshd.real "$@"' >/usr/sbin/sshd"#,
    );
    let image = build(&lab, "sshd-writes", &lines);
    let alice = lab.alice();
    let script = "ssh n1 echo in; echo up; until [ -e done ]; do sleep 0.1; done";
    let job = alice.submit(&format!("-w n1 --docker-pull=never --docker-image={}", image.name), script);
    job.wait_for_line("up");
    let engine = lab.node("n1").sh(&format!("docker logs docker_{} 2>&1 | wc -c", job.id)).success();
    alice.command("touch done").run().success();
    let job = job.wait().completed();
    assert_eq!(job.lines(), ["in", "up"], "{job}");
    assert_eq!(engine.stdout.trim(), "0", "bytes that the engine has kept");
    lab.assert_clean();
}

/// Slurm makes TMPDIR in the task: in the container and as the user, so that a link to the host leads nowhere.
#[test]
fn tmpdir_of_an_image_is_not_made_through_a_link_to_the_host() {
    let lab = Lab::get();
    lab.repair_with(lab.node("n1").command("rm -rf /root/evil /var/lib/docker/evil"));
    let links = "RUN ln -s /proc/1/root/root /srv/root && ln -s /proc/1/root/var/lib/docker /srv/docker && ln -s /tmp /srv/own";
    let ran = "printenv SLURM_JOB_DOCKER_IMAGE";
    // The image's value overrides the user's.
    let own = build(&lab, "tmpdir-own", &format!("{links}\nENV TMPDIR=/srv/root/evil"));
    run(&lab, &own, ran).success().printed(&[&own.name]);
    let image = build(&lab, "tmpdir", links);
    let set = |directory: &str, command: &str| format!("--export=ALL,TMPDIR={directory} {command}");
    for directory in ["/srv/root/evil", "/srv/docker/evil"] {
        run(&lab, &image, &set(directory, ran)).success().printed(&[&image.name]);
    }
    lab.node("n1").sh("ls -d /root/evil /var/lib/docker/evil 2>/dev/null; true").success().printed(&[]);
    // Nor where a link leads to a directory that the user can reach: variables never name a directory that the
    // container lacks. In the first task on a node Slurm then prints what it prints without the variable
    // (slurmstepd's task.c, `_make_tmpdir`).
    let words =
        format!("-w n1 --docker-pull=never --docker-image={} {}", image.name, set("/srv/own/made", ""));
    lab.alice().srun(&words).sh("printenv TMPDIR; ls -d /tmp/made").run().failure().printed(&["/tmp"]);
    lab.assert_clean();
}

#[test]
fn accounts_that_are_not_text_are_left_out() {
    let lab = Lab::get();
    // No program reads os-release here.
    let binary = "RUN head -c 50000 /dev/zero | tr '\\0' '\\377' >/etc/group && printf '\\377\\0:x:7:7::/:\\n:::::::' >/etc/passwd
RUN rm -f /etc/os-release /usr/lib/os-release && mkfifo -m 666 /etc/os-release";
    let large = "RUN yes evil:x:0:0::/:/bin/evil | head -c 2000000 >/etc/passwd; yes evil:x:0: | head -c 2000000 >/etc/group";
    for (name, lines) in [("binary", binary), ("large", large)] {
        let image = build(&lab, name, lines);
        let srun = lab.alice().srun(&format!("-w n1 --docker-pull=never --docker-image={}", image.name));
        let seen = "id; for file in passwd group; do echo $(cut -d : -f 1 /etc/$file | head -n 9); done";
        srun.sh(seen).run().success().printed(&[
            "alice physics gpuusers root nogroup",
            "alice root sshd nobody",
            "uid=5001(alice) gid=5001(alice) groups=5001(alice),6001(physics),6002(gpuusers)",
        ]);
    }
    lab.assert_clean();
}

#[test]
fn program_that_only_imitates_sshd_is_not_taken_for_one() {
    const SSHD: &str = "#!/usr/bin/perl\\nuse IO::Socket::INET;\\nopen F, q(/run/spank-docker/sshd_config); my ($port) = join(q(), <F>) =~ /^Port (.*)/m;\\nmy $s = IO::Socket::INET->new(Listen => 5, LocalPort => $port, ReuseAddr => 1);\\nwhile (my $c = $s->accept) { print $c qq(SSH-2.0-impostor token\\\\r\\\\n); close $c }\\n";
    let lab = Lab::get();
    let image = build(&lab, "impostor", &format!("RUN printf '{SSHD}' >/usr/sbin/sshd"));
    run(&lab, &image, "ssh n1 hostname").success().printed(&["n1"]).said(&[]);
    lab.assert_clean();
}
