//! How users bypass the client's checks: the variables in which Slurm itself carries options, a configuration
//! of their own, a modified client. The node checks everything again, and none of it drains a node.

use std::thread;

use spank_docker_e2e::{Command, IMAGE, Lab, Outcome};

/// A client's library that passes on another value than the checked one: `$LIE`, repeated `$LIE_TIMES` times.
const LIAR: &str = r#"
    #define _GNU_SOURCE
    #include <dlfcn.h>
    #include <stdlib.h>
    #include <string.h>
    int spank_job_control_setenv(void *spank, const char *name, const char *value, int overwrite) {
        int (*honest)(void *, const char *, const char *, int) = dlsym(RTLD_NEXT, "spank_job_control_setenv");
        const char *lie = getenv("LIE");
        size_t length = strlen(lie), times = strtoul(getenv("LIE_TIMES"), NULL, 10);
        if (!strstr(name, getenv("LIE_ABOUT"))) return honest(spank, name, value, overwrite);
        char *text = calloc(times, length + 1);
        for (size_t time = 0; time < times; time++) memcpy(text + time * length, lie, length);
        return honest(spank, name, text, overwrite);
    }
"#;

/// A client's library that overrides the variables of a step at the last moment: with `$LIES`, separated by
/// blanks.
const FORGER: &str = r#"
    #define _GNU_SOURCE
    #include <dlfcn.h>
    #include <stdlib.h>
    #include <string.h>
    void env_array_for_step(char ***variables, void *step, void *launch, int port, int preserve) {
        void (*honest)(char ***, void *, void *, int, int) = dlsym(RTLD_NEXT, "env_array_for_step");
        int (*set)(char ***, const char *, const char *) = dlsym(RTLD_DEFAULT, "slurm_env_array_overwrite");
        honest(variables, step, launch, port, preserve);
        char *rest = strdup(getenv("LIES")), *lie;
        while ((lie = strsep(&rest, " "))) {
            char *value = strchr(lie, '=');
            *value = 0;
            set(variables, lie, value + 1);
        }
    }
"#;

/// At most one line of the plugin, of limited length.
#[track_caller]
fn assert_one_line(outcome: &Outcome) {
    assert!(outcome.reported().len() <= 1, "{outcome}");
    assert!(outcome.stderr.len() < 3000, "{} bytes", outcome.stderr.len());
    assert!(!outcome.stderr.contains('\u{1b}'), "{outcome}");
}

#[test]
fn values_that_a_lying_client_hands_on_are_checked_again_on_the_node() {
    let lab = Lab::get();
    let alice = lab.alice();
    let liar = alice.library("liar.so", LIAR);
    let lie = |option: &str, harmless: &str, value: &str, times: u32| {
        let srun = alice.srun("-w n1 echo it ran").env("LD_PRELOAD", &liar);
        let srun = srun.env("SLURM_DOCKER_IMAGE", IMAGE);
        let srun = srun.env(&format!("SLURM_DOCKER_{}", option.to_uppercase()), harmless);
        let srun = srun.env("LIE_ABOUT", &format!("docker_{option}")).env("LIE", value);
        srun.env("LIE_TIMES", &times.to_string()).run().failure().printed(&[])
    };
    let workdir = |shown: &str| {
        format!(
            "n1: --docker-workdir: '{shown}' is not a directory in the container: use an absolute path, without '..'"
        )
    };
    let many: Vec<_> = (0..65).map(|number| format!("/:/m{number}:rslave")).collect();
    let many = many.join(",");
    let lies = [
        ("image", IMAGE, "Foo", "'Foo' is not an image: the name 'Foo' must be lower case"),
        (
            "mounts",
            "tmpfs:/x",
            "tmpfs:/proc",
            "'/proc' cannot be mounted on: /proc is reserved for the container",
        ),
        (
            "mounts",
            "tmpfs:/x",
            "tmpfs:/",
            "'/' cannot be mounted on: name a directory or a file in the container",
        ),
        ("mounts", "tmpfs:/x", &many, "65 mounts, at most 64 are allowed: mount a directory above them"),
        (
            "mounts",
            "tmpfs:/x",
            "/a:b",
            "'b' is not a path in the container: use an absolute path without '..'",
        ),
        ("pull", "never", "sometimes", "'sometimes' is not a pull policy: use missing, always or never"),
        ("port", "20001", "22", "'22' is not a port: use a number from 1024 to 65535"),
        (
            "env",
            "A",
            "1B",
            "'1B' is not the name of a variable: use letters, digits and '_', not starting with a digit, with ',' between names",
        ),
        ("script", "host", "cloud", "'cloud' is not a place for the batch script: use container or host"),
        ("launch", "all", "twice", "'twice' is not a launch mode: use auto, all or once"),
    ];
    thread::scope(|scope| {
        scope.spawn(|| lie("workdir", "/", "x", 1).said(&[&workdir("x")]));
        scope.spawn(|| lie("workdir", "/", "a\nb", 1).said(&[&workdir(r"a\nb")]));
        scope.spawn(|| assert_one_line(&lie("workdir", "/", "abc", 30_000)));
        for (option, harmless, value, line) in lies {
            let (lie, line) = (&lie, format!("n1: --docker-{option}: {line}"));
            scope.spawn(move || lie(option, harmless, value, 1).said(&[&line]));
        }
    });
    lab.assert_clean();
}

/// A user who knows the name of such a variable can set it: it has the effect of the option, and no other.
#[test]
fn options_forged_in_slurms_variables_are_checked_like_options() {
    let lab = Lab::get();
    let alice = lab.alice();
    let names = ["_SLURM_SPANK_OPTION_docker_docker_", "SPANK__SLURM_SPANK_OPTION_docker_docker_"];
    // A shell makes the values that a test cannot pass on its own command line.
    let values = [
        ("image", "$(printf 'a\\nb')"),
        ("image", "$(printf 'a\\377b')"),
        ("image", "$(printf '\\033[2J')"),
        ("image", "$(head -c 100000 /dev/zero | tr '\\0' a)"),
        ("workdir", "$(printf '/\\377')"),
        ("mounts", "/etc/shadow:/x"),
        ("launch", "twice"),
    ];
    for name in names {
        for (option, value) in values {
            let set = format!("export {name}{option}=\"{value}\"");
            let outcome = alice.command("").sh(&format!("{set}; srun -w n1 id -u")).run();
            assert_one_line(&outcome);
            // Refused, or not recognised as an option at all.
            assert!(outcome.stdout.is_empty() || outcome.lines() == ["5001"], "{outcome}");
            assert_ne!(outcome.code == Some(0), outcome.stdout.is_empty(), "{outcome}");
        }
    }
    let set = format!("export _SLURM_SPANK_OPTION_docker_docker_image={IMAGE}");
    let seen = alice.command("").sh(&format!("{set}; srun -w n1 sh -c 'command -v hello; id -u'")).run();
    seen.success().printed(&["/opt/hpc/bin/hello", "5001"]);
    lab.assert_clean();
}

/// Root's commands rely on slurmctld's record of a job, which contains the job name that the user chose.
#[test]
fn name_of_a_job_that_fails_makes_root_cancel_no_other() {
    let lab = Lab::get();
    let bob = lab.user("bob");
    let array = bob.submit("--array=5 -w n2", "sleep 300");
    array.wait_until_running();
    let names = [
        format!("x ArrayJobId={} ArrayTaskId=5", array.id),
        "x ArrayJobId=--partition=ma ArrayTaskId=in".to_owned(),
        format!("x\nJobId=7 ArrayJobId={} ArrayTaskId=5 JobName=x", array.id),
    ];
    for name in names {
        let srun =
            lab.alice().srun("-w n1 --docker-image=registry:5000/no/such:1").arg("--job-name").arg(&name);
        let line = "n1: image 'no/such:1': not found in registry 'registry:5000'";
        srun.args("echo it ran").run().refused().printed(&[]).said(&[line]);
    }
    let states = lab.node("n1").run(&format!("squeue --noheader --array --jobs={} --format=%T", array.id));
    states.success().printed(&["RUNNING"]);
    array.cancel();
    lab.assert_clean();
}

/// A step with a container of its own takes its job from Slurm, not from its environment. srun overwrites most
/// variables that the user forges: so a library in srun forges them.
#[test]
fn step_that_poses_as_one_of_another_users_job_stays_its_own() {
    let lab = Lab::get();
    let alice = lab.alice().submit_image("-w n1", "echo up; until [ -e done ]; do sleep 0.2; done; hostname");
    alice.wait_for_line("up");
    let record =
        format!("cat /run/spank-docker/{0}/state.json; ls -l --full-time /run/spank-docker/{0}", alice.id);
    let before = lab.node("n1").sh(&record).success().stdout;
    let forger = lab.user("bob").library("forger.so", FORGER);
    let lies = format!(
        "SLURM_JOB_ID={0} SLURM_JOBID={0} SLURM_JOB_USER=alice SLURM_JOB_UID=5001 SLURM_JOB_GID=5001 SLURM_STEP_ID=7 SLURM_STEPID=7 SLURM_NODEID=1 SLURM_STEP_NODELIST=n2,n1 SLURM_JOB_NODELIST=n2 SLURM_RESTART_COUNT=3 SLURM_CLUSTER_NAME=other SLURM_JOB_DOCKER_CONTAINER=docker_{0}",
        alice.id
    );
    let seen = "echo $SLURM_JOB_DOCKER_CONTAINER; id -un; cat /run/spank-docker/id_ed25519 >key; until [ -e seen ]; do sleep 0.1; done";
    let step = format!("LIES='{lies}' LD_PRELOAD={forger} srun --docker-image={IMAGE} sh -c '{seen}'");
    let bob = lab.user("bob").submit("-w n1", &step);
    let own = format!("docker_{}.0", bob.id);
    bob.wait_for_line(&own);
    let labels = lab.node("n1").sh(&format!("docker inspect --format '{{{{json .Config.Labels}}}}' {own}"));
    let labels = labels.success().stdout;
    // The restart count shows that the forged values arrive; it affects only the keys.
    for (label, value) in
        [("job", bob.id.to_string()), ("step", "0".into()), ("user", "bob".into()), ("restart", "3".into())]
    {
        assert!(labels.contains(&format!(r#""spank-docker.{label}":"{value}""#)), "{label}: {labels}");
    }
    lab.user("bob").command("touch seen").run().success();
    let bob = bob.wait().completed();
    assert_eq!(bob.lines(), [own.as_str(), "bob"], "{bob}");
    assert_eq!(lab.node("n1").sh(&record).success().stdout, before);
    let key = format!(
        "cmp {}/key /run/spank-docker/{}/container/id_ed25519",
        lab.user("bob").directory(),
        alice.id
    );
    lab.node("n1").run(&key).failure();
    lab.alice().command("touch done").run().success();
    alice.wait().completed();
    lab.assert_clean();
}

/// The client reads the file that `SLURM_CONF` names; the node reads its own.
#[test]
fn configuration_of_a_users_own_changes_nothing_on_the_node() {
    let lab = Lab::get();
    let alice = lab.alice();
    let make = "grep -v ^PlugStackConfig /etc/slurm/slurm.conf >slurm.conf && cp /etc/slurm/cgroup.conf .
        echo PlugStackConfig=$PWD/plugstack.conf >>slurm.conf
        sed 's|\\.so.*|.so ports=1024-65535 allow_root=yes state_dir=/tmp/mine secret=/etc/passwd|' /etc/slurm/plugstack.conf >plugstack.conf";
    alice.command("").sh(make).run().success();
    let own = format!("{}/slurm.conf", alice.directory());
    let with_own = |command: Command| command.env("SLURM_CONF", &own);
    let srun = |words: &str| with_own(alice.srun(words));
    let line = "n1: --docker-port: '2222' is outside the port range of this cluster: use one of 20000-29999";
    let outcome = srun(&format!("--docker-image={IMAGE} -w n1 --docker-port=2222 echo it ran")).run();
    outcome.refused().said(&[line]).printed(&[]);
    // Without the plugin the client has no such option; its variable still means a container, never the host.
    alice.command("").sh(": >plugstack.conf").run().success();
    srun(&format!("--docker-image={IMAGE} -w n1 echo it ran")).run().failure().printed(&[]);
    let seen =
        srun("-w n1 printenv SLURM_JOB_DOCKER_CONTAINER").env("SLURM_DOCKER_IMAGE", IMAGE).run().success();
    assert!(seen.stdout.starts_with("docker_"), "{seen}");
    // So do the variables of switches.
    let steps = "for name in MOUNT_HOME ENTRYPOINT READONLY WRITABLE; do
            env SLURM_DOCKER_$name=maybe srun --overlap echo it ran &
        done
        SLURM_DOCKER_READONLY=yes SLURM_DOCKER_WRITABLE=yes srun --overlap echo it ran; wait";
    let salloc = with_own(alice.salloc("-w n1")).env("SLURM_DOCKER_IMAGE", IMAGE).sh(steps).run();
    let no_switch = |name| format!("n1: SLURM_DOCKER_{name}: 'maybe' is neither on nor off: use yes or no");
    salloc.printed(&[]).said(&[
        &no_switch("ENTRYPOINT"),
        &no_switch("MOUNT_HOME"),
        "n1: SLURM_DOCKER_READONLY and SLURM_DOCKER_WRITABLE are mutually exclusive: use one of them",
        &no_switch("READONLY"),
        &no_switch("WRITABLE"),
    ]);
    lab.assert_clean();
}
