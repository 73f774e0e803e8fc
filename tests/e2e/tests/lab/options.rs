//! Options and their variables.

use spank_docker_e2e::{Command, IMAGE, Lab, image};

const SAY_IMAGE: &str = "echo image ${SLURM_JOB_DOCKER_IMAGE:-none}";

/// Invalid values: where they stand, and the message.
const BAD: [(&str, &str); 28] = [
    (
        "--docker-image=",
        "--docker-image: '' is not a value: use [registry[:port]/]name[:tag][@digest], a file (/... or ./...), or none",
    ),
    ("--docker-image=Foo", "--docker-image: 'Foo' is not an image: the name 'Foo' must be lower case"),
    (
        "--docker-image=a/b//c",
        "--docker-image: 'a/b//c' is not an image: 'a/b//c' is not a name, use lower-case letters and digits, with '.', '_', '-' or '/' between them",
    ),
    (
        "--docker-image=a:-b",
        "--docker-image: 'a:-b' is not an image: '-b' is not a tag, use up to 128 letters, digits, '_', '.' and '-', not starting with '.' or '-'",
    ),
    (
        "--docker-image=a@sha256:0",
        "--docker-image: 'a@sha256:0' is not an image: 'sha256:0' is not a digest, use sha256: and 64 lower-case hex digits",
    ),
    (
        "--docker-image=a_b.c:5000x/d",
        "--docker-image: 'a_b.c:5000x/d' is not an image: 'a_b.c:5000x' is not a registry, use host or host:port",
    ),
    (
        "--docker-pull=sometimes",
        "--docker-pull: 'sometimes' is not a pull policy: use missing, always or never",
    ),
    ("--docker-port=ssh", "--docker-port: 'ssh' is not a port: use a number from 1024 to 65535"),
    ("--docker-port=22", "--docker-port: '22' is not a port: use a number from 1024 to 65535"),
    (
        "--docker-image=a --docker-port=30000",
        "--docker-port: '30000' is outside the port range of this cluster: use one of 20000-29999",
    ),
    (
        "--docker-env=A,1B",
        "--docker-env: '1B' is not the name of a variable: use letters, digits and '_', not starting with a digit, with ',' between names",
    ),
    ("--docker-env=", "--docker-env: '' is not a value: use names of variables with ',' between them"),
    (
        "--docker-script=cloud",
        "--docker-script: 'cloud' is not a place for the batch script: use container or host",
    ),
    (
        "--docker-mounts=/a,b",
        "--docker-mounts: 'b' is not an absolute path: use /DIRECTORY, /FILE, /dev/DEVICE, or tmpfs:DST",
    ),
    (
        "--docker-mounts=/a:/b/../c",
        "--docker-mounts: '/b/../c' is not a path in the container: use an absolute path without '..'",
    ),
    (
        "--docker-mounts=/a:b",
        "--docker-mounts: 'b' is not a path in the container: use an absolute path without '..'",
    ),
    (
        "--docker-mounts=/a:/",
        "--docker-mounts: '/' cannot be mounted on: name a directory or a file in the container",
    ),
    ("--docker-mounts=/a:/b,/c:/b", "--docker-mounts: '/b' is the target of two mounts: name it once"),
    (
        "--docker-workdir=x",
        "--docker-workdir: 'x' is not a directory in the container: use an absolute path, without '..'",
    ),
    (
        "--docker-readonly --docker-writable",
        "--docker-readonly and --docker-writable are mutually exclusive: use one of them",
    ),
    (
        "--docker-entrypoint --no-docker-entrypoint",
        "--docker-entrypoint and --no-docker-entrypoint are mutually exclusive: use one of them",
    ),
    (
        "--docker-mount-home --no-docker-mount-home",
        "--docker-mount-home and --no-docker-mount-home are mutually exclusive: use one of them",
    ),
    (
        "SLURM_DOCKER_MOUNT_HOME=maybe",
        "SLURM_DOCKER_MOUNT_HOME: 'maybe' is neither on nor off: use yes or no",
    ),
    (
        "SLURM_DOCKER_ENTRYPOINT=maybe",
        "SLURM_DOCKER_ENTRYPOINT: 'maybe' is neither on nor off: use yes or no",
    ),
    ("--docker-launch=twice", "--docker-launch: 'twice' is not a launch mode: use auto, all or once"),
    (
        "SLURM_DOCKER_IMAGE=Foo",
        "SLURM_DOCKER_IMAGE: 'Foo' is not an image: the name 'Foo' must be lower case",
    ),
    (
        "SLURM_DOCKER_PULL=sometimes",
        "SLURM_DOCKER_PULL: 'sometimes' is not a pull policy: use missing, always or never",
    ),
    ("SLURM_DOCKER_PORT=x", "SLURM_DOCKER_PORT: 'x' is not a port: use a number from 1024 to 65535"),
];

/// Runs a client with each invalid value, all in one shell; each must fail with its line, and submit nothing.
fn refuses_bad_values(client: &str, rest: &str) {
    let lab = Lab::get();
    let mut script = String::new();
    for (given, _) in BAD {
        let (variables, options) = if given.starts_with("--") { ("", given) } else { (given, "") };
        script += &format!("echo; echo CASE; {variables} {client} {options} {rest} 2>&1; echo code $?\n");
    }
    let outcome = lab.alice().command("").sh(&script).run().success();
    let answers: Vec<_> = outcome.stdout.split("\nCASE\n").skip(1).collect();
    assert_eq!(answers.len(), BAD.len(), "{outcome}");
    for ((given, line), answer) in BAD.iter().zip(answers) {
        let ours: Vec<_> = answer.lines().filter(|line| line.contains("spank_docker: ")).collect();
        assert_eq!(ours, [format!("{client}: error: spank_docker: {line}")], "{client} {given}:\n{answer}");
        let code = answer.lines().find_map(|line| line.strip_prefix("code "));
        assert!(code.is_some_and(|code| code != "0"), "{client} {given}:\n{answer}");
        assert!(!answer.contains("it ran"), "{client} {given}:\n{answer}");
    }
    assert_eq!(lab.jobs(), [0u32; 0], "a job was submitted");
    lab.assert_clean();
}

#[test]
fn srun_refuses_bad_values_at_once() {
    refuses_bad_values("srun", "echo it ran");
}

#[test]
fn salloc_refuses_bad_values_at_once() {
    refuses_bad_values("salloc", "echo it ran");
}

#[test]
fn sbatch_refuses_bad_values_at_once() {
    refuses_bad_values("sbatch", "--wrap='echo it ran'");
}

#[test]
fn option_without_an_image_warns_on_every_client() {
    let lab = Lab::get();
    let alice = lab.alice();
    let warning = |option| format!("warning: --{option} has no effect without --docker-image");
    for (option, value) in [("docker-pull", "never"), ("docker-port", "20001"), ("docker-env", "A")] {
        let outcome = alice.srun(&format!("--{option}={value}")).sh(SAY_IMAGE).run().success();
        outcome.printed(&["image none"]).said(&[&warning(option)]);
    }
    let outcome = alice.salloc("--docker-script=host").sh(SAY_IMAGE).run().success();
    outcome.printed(&["image none"]).said(&[&warning("docker-script")]);
    let sbatch = alice.sbatch("--docker-launch=all --wait", SAY_IMAGE);
    sbatch.run().success().said(&[&warning("docker-launch")]);
    alice.srun("--docker-image=none").sh(SAY_IMAGE).run().success().printed(&["image none"]).said(&[]);
    // A container has these from its start.
    let salloc = alice.salloc(&format!("--docker-image={IMAGE} srun --docker-readonly")).sh(SAY_IMAGE);
    let line = "warning: --docker-readonly has no effect: this step runs in its job's container";
    salloc.run().success().printed(&[&format!("image {IMAGE}")]).said(&[line]);
    // A job that srun has made is known as one with a container, too.
    let srun = alice.srun(&format!("-w n2 --docker-image={IMAGE} srun --overlap --docker-workdir=/usr pwd"));
    srun.run().success().printed(&["/usr"]).said(&[]);
    lab.assert_clean();
}

/// Slurm itself keeps both options.
#[test]
fn the_command_line_overrides_the_opposite_option_in_a_script() {
    let lab = Lab::get();
    let alice = lab.alice();
    let script = "printf '#!/bin/sh\n#SBATCH --docker-image=IMAGE --docker-READ\ntouch /var/tmp/x && echo writable; srun true\n' >READ
        sbatch --quiet --wait --output=out --docker-WRITE READ; cat out";
    for (in_script, option, seen) in [
        ("readonly", "writable", "writable"),
        ("writable", "readonly", "touch: cannot touch '/var/tmp/x': Read-only file system"),
    ] {
        let script = script.replace("IMAGE", IMAGE).replace("READ", in_script).replace("WRITE", option);
        alice.command("").sh(&script).run().success().printed(&[seen]);
    }
    lab.assert_clean();
}

#[test]
fn steps_of_a_job_do_not_follow_a_variable_that_its_command_line_has_overridden() {
    let lab = Lab::get();
    let alice = lab.alice();
    let inside = format!("image {IMAGE}");
    for (variable, option, seen) in [
        ("none", IMAGE, inside.as_str()),
        ("registry:5000/hpc/mpich", IMAGE, &inside),
        (IMAGE, "none", "image none"),
    ] {
        let with = |command: Command| command.env("SLURM_DOCKER_IMAGE", variable);
        let option = format!("--docker-image={option}");
        with(alice.salloc(&option).args("srun").sh(SAY_IMAGE)).run().success().printed(&[seen]);
        let script = format!("srun sh -c '{SAY_IMAGE}'");
        let job = alice.submitted(&with(alice.sbatch(&option, &script))).wait().completed();
        assert_eq!(job.lines(), [seen], "{job}");
    }
    lab.assert_clean();
}

#[test]
fn each_client_takes_the_image_from_the_variable() {
    let lab = Lab::get();
    let alice = lab.alice();
    let inside = format!("image {IMAGE}");
    let srun = alice.srun("").sh(SAY_IMAGE).env("SLURM_DOCKER_IMAGE", IMAGE);
    srun.run().success().printed(&[&inside]);
    let salloc = alice.salloc("").args("srun").sh(SAY_IMAGE).env("SLURM_DOCKER_IMAGE", IMAGE);
    salloc.run().success().printed(&[&inside]);
    let sbatch = alice.sbatch("", SAY_IMAGE).env("SLURM_DOCKER_IMAGE", IMAGE);
    let job = alice.submitted(&sbatch).wait().completed();
    assert_eq!(job.lines(), [&inside], "{job}");
    lab.assert_clean();
}

#[test]
fn image_survives_export_none() {
    let lab = Lab::get();
    let alice = lab.alice();
    let seen = format!("{SAY_IMAGE} ${{MINE-unset}} ${{OTHER-unset}}");
    let image = format!("--docker-image={IMAGE}");
    let cases = [
        ("NONE", image.as_str(), "", "unset unset"),
        ("NONE", "", IMAGE, "unset unset"),
        ("MINE", &image, "", "host unset"),
        ("MINE=1", "", IMAGE, "1 unset"),
    ];
    let check = |(export, option, variable, expected): (&str, &str, &str, &str)| {
        let with = |command: Command| {
            command.env("SLURM_DOCKER_IMAGE", variable).env("MINE", "host").env("OTHER", "host")
        };
        let options = format!("--export={export} {option}");
        let expected = format!("image {IMAGE} {expected}");
        let job = alice.submitted(&with(alice.sbatch(&options, &seen)));
        with(alice.srun(&options).sh(&seen)).run().success().printed(&[&expected]);
        let job = job.wait().completed();
        assert_eq!(job.lines(), [&expected], "{job}");
    };
    let check = &check;
    std::thread::scope(|scope| cases.into_iter().for_each(|case| drop(scope.spawn(move || check(case)))));
    lab.assert_clean();
}

#[test]
fn command_line_wins_over_the_variable() {
    let lab = Lab::get();
    let alice = lab.alice();
    let other = image("nossh");
    let srun = alice.srun_image("").sh(SAY_IMAGE).env("SLURM_DOCKER_IMAGE", &other);
    srun.run().success().printed(&[&format!("image {IMAGE}")]).said(&[]);
    let none = alice.srun("--docker-image=none").sh(SAY_IMAGE).env("SLURM_DOCKER_IMAGE", &other);
    none.run().success().printed(&["image none"]).said(&[]);
    let sbatch =
        alice.sbatch(&format!("--docker-image={IMAGE}"), SAY_IMAGE).env("SLURM_DOCKER_IMAGE", &other);
    let job = alice.submitted(&sbatch).wait().completed();
    assert_eq!(job.lines(), [format!("image {IMAGE}")], "{job}");
    lab.assert_clean();
}

#[test]
fn docker_env_keeps_the_value_of_the_host() {
    let lab = Lab::get();
    let srun = |options: &str| {
        let command =
            lab.alice().srun_image(options).sh("printenv PATH").env("PATH", "/usr/bin:/bin:/of/the/host");
        command.run().success().stdout
    };
    assert!(srun("").starts_with("/opt/hpc/bin:"));
    assert_eq!(srun("--docker-env=PATH"), "/usr/bin:/bin:/of/the/host:/run/spank-docker/bin\n");
    lab.assert_clean();
}

/// The job's value overrides the image's, in every process.
#[test]
fn docker_env_holds_for_scripts_sessions_and_steps() {
    let lab = Lab::get();
    let built = lab.node("n1").build("own/colours", IMAGE, "ENV COLOUR=blue SHAPE=round", "");
    let seen = "echo $COLOUR $SHAPE";
    let alice = lab.alice();
    let options = format!("-w n1 --docker-env=COLOUR --docker-image={}", built.name);
    // The image has no srun.
    let steps = format!("srun sh -c '{seen}'; srun --docker-env=SHAPE sh -c '{seen}'");
    let run = |options: &str, script: &str| {
        let sbatch = alice.sbatch(options, script).env("COLOUR", "red").env("SHAPE", "square");
        alice.submitted(&sbatch).wait()
    };
    let job = run(&options, &format!("{seen}; ssh n1 '{seen}'")).completed();
    assert_eq!(job.lines(), ["red round", "red round"], "{job}");
    let job = run(&format!("{options} --docker-script=host"), &steps).completed();
    assert_eq!(job.lines(), ["red round", "blue square"], "{job}");
    lab.assert_clean();
}

/// Each option has a variable.
#[test]
fn all_options_can_be_given_as_variables() {
    let lab = Lab::get();
    let alice = lab.alice();
    let lines = "COPY program /entry\nENTRYPOINT [\"/entry\"]\nENV COLOUR=blue";
    let entry = "#!/bin/sh\nexport ENTERED=yes\nexec \"$@\"\n";
    let built = lab.node("n1").build("own/variables", IMAGE, lines, entry);
    let script = "srun sh -c 'pwd; echo $COLOUR $ENTERED $SLURM_JOB_DOCKER_PORT; touch /x 2>/dev/null || echo read only; stat -f -c %T /fast'
        echo ${SLURM_JOB_DOCKER_IMAGE:-host}";
    let mut sbatch = alice.sbatch("-w n1", script);
    for (name, value) in [
        ("IMAGE", built.name.as_str()),
        ("PULL", "never"),
        ("MOUNTS", "tmpfs:/fast"),
        ("WORKDIR", "/usr"),
        ("ENV", "COLOUR"),
        ("ENTRYPOINT", "yes"),
        ("READONLY", "yes"),
        ("SCRIPT", "host"),
        ("PORT", "29872"),
    ] {
        sbatch = sbatch.env(&format!("SLURM_DOCKER_{name}"), value);
    }
    let job = alice.submitted(&sbatch.env("COLOUR", "red")).wait().completed();
    assert_eq!(job.lines(), ["/usr", "red yes 29872", "read only", "tmpfs", "host"], "{job}");
    let once = alice.srun_image("-N2 -n2 hostname").env("SLURM_DOCKER_LAUNCH", "once");
    assert_eq!(once.run().success().lines().len(), 1);
    let pull = alice.srun("-w n1 echo it ran").env("SLURM_DOCKER_IMAGE", "registry:5000/hpc/absent");
    let pull = pull.env("SLURM_DOCKER_PULL", "never").run().failure().printed(&[]);
    assert!(pull.reported()[0].contains("pull"), "{pull}");
    lab.assert_clean();
}

/// Where the container does not have the job's directory, and no other one is requested.
#[test]
fn workdir_of_the_image_is_the_last_resort() {
    let lab = Lab::get();
    let alice = lab.alice();
    let built = lab.node("n1").build("own/workdir", IMAGE, "WORKDIR /srv/work", "");
    let image = format!("-w n1 --docker-image={}", built.name);
    let pwd =
        |options: &str| alice.srun(&format!("{image} {options} sh -c")).arg("pwd; echo $PWD").run().success();
    let here = alice.directory();
    pwd("").printed(&[&here, &here]);
    pwd("--docker-workdir=/usr").printed(&["/usr", "/usr"]);
    // On the host: a directory that the container does not have.
    pwd("--chdir=/usr/lib/spank-docker").printed(&["/srv/work", "/srv/work"]);
    lab.assert_clean();
}

#[test]
fn docker_port_is_where_sshd_listens() {
    let lab = Lab::get();
    let script = "echo port $SLURM_JOB_DOCKER_PORT; ssh n2 hostname; ssh -G n2 | grep ^port";
    let job = lab.alice().submit_image("-w n1,n2 -N2 --docker-port=29871", script).wait().completed();
    assert_eq!(job.lines(), ["port 29871", "n2", "port 29871"], "{job}");
    lab.assert_clean();
    let listeners = lab.everywhere("ss --no-header --listening --tcp --numeric 'sport = 29871'");
    assert_eq!(listeners, ["", "", ""]);
}

#[test]
fn root_is_refused() {
    let lab = Lab::get();
    let line =
        "root may not run containers here: submit as another user, or ask the admin for allow_root=yes";
    for words in ["srun IMAGE echo it ran", "sbatch IMAGE --wrap=true"] {
        let words = words.replace("IMAGE", &format!("--docker-image={IMAGE}"));
        let outcome = lab.node("n1").run(&words).said(&[line]).printed(&[]);
        assert_eq!(outcome.code, Some(1), "{outcome}");
    }
    lab.assert_clean();
}

/// As portals do. The job is the user's, with the user's rights.
#[test]
fn root_may_submit_for_a_user() {
    let lab = Lab::get();
    let alice = lab.alice();
    let (image, directory) = (format!("--docker-image={IMAGE}"), alice.directory());
    let words = format!(
        "sbatch --wait --uid=alice --gid=alice -w n1 {image} --chdir={directory} --output={directory}/uid.out --wrap id"
    );
    lab.node("n1").run(&words).success();
    let id = alice.command("id").run().success();
    assert_eq!(alice.command("cat uid.out").run().success().stdout, id.stdout);
    lab.assert_clean();
}

#[test]
fn help_shows_the_options() {
    let lab = Lab::get();
    for client in ["srun", "sbatch", "salloc"] {
        let help = lab.alice().command(client).args("--help").run().success();
        for option in ["image", "pull", "mounts", "workdir", "port", "env", "script", "launch"] {
            assert!(help.stdout.contains(&format!("--docker-{option}=")), "{option}\n{help}");
        }
        for option in ["docker-mount-home", "docker-entrypoint", "docker-readonly"] {
            assert!(help.stdout.contains(&format!("--{option} ")), "{option}\n{help}");
        }
        for option in ["no-docker-mount-home", "no-docker-entrypoint", "docker-writable"] {
            assert!(help.stdout.contains(&format!("--{option} ")), "{option}\n{help}");
        }
    }
    lab.assert_clean();
}
