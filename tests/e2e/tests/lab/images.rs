//! Images that are not available, or cannot be used: one line for the user, in srun's output and in that of a
//! batch job.

use std::time::Duration;

use spank_docker_e2e::{IMAGE, Lab, image};

use crate::failures::each_fails;
use crate::hostile_image::at_once;

/// On n3, with `$other` for another architecture: a registry of this test's own, one that requires
/// authentication, and damaged images.
const SET_UP: &str = r#"
set -e
mkdir -p /tmp/own/data
cd /tmp/own
cat >open.yml <<END
version: 0.1
log: {level: error}
storage: {filesystem: {rootdirectory: /tmp/own/data}}
http: {addr: "127.0.0.1:5001"}
END
sed 's/5001/5002/' open.yml >closed.yml
echo 'auth: {htpasswd: {realm: own, path: /tmp/own/htpasswd}}' >>closed.yml
echo 'somebody:$2y$05$vhdJJY2Yd4PAqgiHK9sNYe8vbmBI0EQFP/xIhSVIpFmRr9XzRaBK6' >htpasswd
# The client keeps lists of manifests there.
export DOCKER_CONFIG=/tmp/own/client OTEL_TRACES_EXPORTER=none
for name in open closed; do
    setsid docker-registry serve $name.yml >$name.log 2>&1 </dev/null &
    echo $! >>pids
done
cat >limited.pl <<'END'
use IO::Socket::INET;
$SIG{CHLD} = "IGNORE";
my $server = IO::Socket::INET->new(Listen => 9, ReuseAddr => 1, LocalAddr => "127.0.0.1", LocalPort => 5006) or die;
while (my $client = $server->accept) {
    next if fork;
    # TLS is tried first. Engines go on without where they read such an answer.
    recv $client, my $first, 1, MSG_PEEK;
    if (ord $first == 22) { print $client "HTTP/1.1 400 Bad Request\r\n\r\n"; exit; }
    my ($method, $path);
    while (my $line = <$client>) {
        ($method, $path) = ($1, $2) if $line =~ m{^(GET|HEAD) (\S+)};
        next if $line !~ /^\r/;
        my ($status, $body) = $path eq "/v2/" ? ("200 OK", "{}")
            : ("429 Too Many Requests", '{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}');
        my $head = "HTTP/1.1 $status\r\nContent-Type: application/json\r\nContent-Length: ";
        print $client $head . length($body) . "\r\n\r\n" . ($method eq "HEAD" ? "" : $body);
    }
    exit;
}
END
setsid perl limited.pl >limited.log 2>&1 </dev/null &
echo $! >>pids
until [ "$(ss --no-header --listening --tcp 'sport = 5001 or sport = 5002 or sport = 5006' | wc -l)" = 3 ]; do sleep 0.05; done

own=localhost:5001/own
for name in damaged other; do head -c 1000000 /dev/urandom >content; tar -cf $name.tar content; done
docker import damaged.tar $own/damaged
# Not every engine can import one for another kind of processor.
layer=$(sha256sum other.tar | cut -c 1-64)
echo '{"architecture": "'$other'", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": ["sha256:'$layer'"]}}' >config
echo '[{"Config": "config", "RepoTags": ["'$own/other:latest'"], "Layers": ["other.tar"]}]' >manifest.json
tar -c config manifest.json other.tar | docker load
docker push --quiet $own/damaged
docker push --quiet $own/other
docker manifest create --insecure $own/list $own/other
docker manifest push --insecure $own/list
docker rmi $own/damaged $own/other
# The layer, not the small description of the image.
for blob in $(find data -name data -size +500k); do
    digest=$(basename "$(dirname "$blob")")
    if grep -qr "$digest" data/docker/registry/v2/repositories/own/damaged; then
        printf damage | dd "of=$blob" bs=1 seek=500000 conv=notrunc
    fi
done
"#;

const TEAR_DOWN: &str = "
cd /tmp/own 2>/dev/null || exit 0
kill $(cat pids)
for name in other damaged list; do docker rmi --force localhost:5001/own/$name; done
rm -rf /tmp/own";

#[test]
fn image_that_cannot_be_pulled_fails_the_job() {
    let lab = Lab::get();
    let n3 = lab.node("n3");
    let end = n3.command("").sh(TEAR_DOWN);
    lab.repair_with(end.clone());
    let ours = n3.run("docker version --format {{.Server.Arch}}").success().stdout.trim().to_owned();
    let other = if ours == "arm64" { "amd64" } else { "arm64" };
    n3.sh(&format!("other={other}\n{SET_UP}")).success();
    let id = format!("sha256:{}", "0".repeat(64));
    let cases = [
        ("registry:5000/hpc/nowhere:1", "image 'hpc/nowhere:1': not found in registry 'registry:5000'"),
        ("registry:5000/hpc/openmpi:nope", "image 'hpc/openmpi:nope': not found in registry 'registry:5000'"),
        (
            "registry:5000/hpc/openmpi:absent --docker-pull=never",
            "image 'registry:5000/hpc/openmpi:absent': not present on this node, and the pull policy is 'never': use --docker-pull=missing",
        ),
        (
            &id,
            &format!(
                "image '{id}': no image on this node has this id; to pull it, name it by repository and tag"
            ),
        ),
        (
            "nowhere.invalid:5000/a",
            "image 'a': registry 'nowhere.invalid:5000' cannot be reached: no such host",
        ),
        ("localhost:1/a/b", "image 'a/b': registry 'localhost:1' cannot be reached: connection refused"),
        (
            "localhost:5002/a",
            "image 'a': registry 'localhost:5002' denies access without a login: log in with 'docker login', or add an entry for it to ~/.docker/config.json",
        ),
        (
            "localhost:5006/a",
            "image 'a': registry 'localhost:5006' allows no more pulls for now: log in with 'docker login', submit again later, or ask the admin for a mirror",
        ),
        (
            "localhost:5001/own/damaged",
            "image 'own/damaged': damaged in registry 'localhost:5001': push it again",
        ),
        (
            "localhost:5001/own/other",
            &format!("image 'localhost:5001/own/other': built for '{other}', this node is '{ours}'"),
        ),
        (
            "localhost:5001/own/list",
            &format!(
                "image 'own/list': not available for this node's architecture '{ours}' in registry 'localhost:5001'"
            ),
        ),
    ];
    // Podman tries again for minutes where a registry allows no more pulls.
    let is_podman = lab.is_podman();
    let cases = cases.into_iter().filter(|(image, _)| !(is_podman && image.starts_with("localhost:5006")));
    let cases: Vec<_> =
        cases.map(|(image, line)| (format!("--docker-image={image}"), line.to_owned())).collect();
    each_fails(&lab, "n3", &cases);
    // The admin's log has all causes.
    let causes = "grep 'image .a.: registry .nowhere.invalid:5000. cannot be reached: no such host: .*lookup nowhere.invalid' /var/log/slurm/slurmd.log";
    n3.sh(causes).success();
    end.run().success();
    lab.assert_no_job_completed();
    lab.assert_clean();
}

// The plugin waits half a minute for an sshd that runs.
#[test]
fn sshd_that_dies_at_once_or_never_answers_gives_way_to_the_plugins() {
    let lab = Lab::within(Duration::from_secs(180));
    let with_sshd = |name: &str, script: &str| {
        lab.node("n3").build(name, IMAGE, "COPY program /usr/sbin/sshd", format!("#!/bin/sh\n{script}\n"))
    };
    let dies = with_sshd("own/dies", "echo 'no more memory' >&2; exit 1");
    let silent = with_sshd("own/silent", "exec sleep 300");
    // It listens, and sends nothing to clients.
    let mute = with_sshd(
        "own/mute",
        "port=$(sed -n 's/^Port //p' /run/spank-docker/sshd_config)
        exec perl -MIO::Socket::INET -e '
            my $s = IO::Socket::INET->new(Listen => 5, LocalPort => shift, ReuseAddr => 1);
            while (my $c = $s->accept) { push @open, $c }' $port",
    );
    at_once(&[&dies, &silent, &mute], |image| {
        let step = lab.alice().srun(&format!("-w n3 --docker-image={}", image.name)).sh("ssh n3 hostname");
        step.run().success().printed(&["n3"]).said(&[]);
    });
    lab.assert_clean();
}

#[test]
fn tag_that_was_moved_between_two_nodes_fails_the_job_unless_it_is_pulled_again() {
    let lab = Lab::get();
    let alice = lab.alice();
    let moved = format!("registry:5000/hpc/moved:{}", std::process::id());
    let push = |node: &str, image: &str| {
        let script = format!(
            "docker pull --quiet {image} && docker tag {image} {moved} && docker push --quiet {moved}"
        );
        lab.node(node).sh(&script).success();
    };
    push("n1", IMAGE);
    push("n2", &image("mpich"));
    let line = |node: &str, other: &str| {
        format!(
            "{node}: image '{moved}': the tag resolves to a different image on node '{other}': use --docker-pull=always, or name the image by its digest"
        )
    };
    let image = format!("-w n1,n2 -N2 --docker-image={moved}");
    let srun = alice.srun(&format!("{image} echo it ran")).run().refused();
    srun.said(&[&line("n1", "n2"), &line("n2", "n1")]).printed(&[]);
    let job = alice.submit(&image, "echo it ran").wait().failed();
    assert_eq!(job.lines(), [format!("spank_docker: {}", line("n1", "n2"))], "{job}");
    // The containers of a step start one after the other: the last one compares.
    let salloc =
        alice.salloc(&format!("-w n1,n2 -N2 -n2 srun --docker-image={moved} sleep 20")).run().failure();
    let lines = [line("n1", "n2"), line("n2", "n1")];
    assert!(
        !salloc.reported().is_empty()
            && salloc.reported().iter().all(|said| lines.iter().any(|line| line == said)),
        "{salloc}"
    );
    // Both have the newer image then.
    let show = "printenv SLURM_JOB_DOCKER_IMAGE_ID";
    let srun = alice.srun(&format!("{image} --docker-pull=always {show}")).run().success();
    assert!(matches!(srun.lines()[..], [one, other] if one == other), "{srun}");
    lab.everywhere(&format!("docker rmi {moved} || true"));
    lab.assert_clean();
}

#[test]
fn moved_tag_of_an_image_without_sshd_is_detected() {
    let lab = Lab::get();
    let nossh = image("nossh");
    let moved = format!("registry:5000/own/moved:{}", std::process::id());
    let push = |node: &str, change: &str| {
        let script = format!(
            "set -e; docker pull --quiet {nossh}; id=$(docker create {nossh} true)
             docker commit --change '{change}' $id {moved}; docker rm $id; docker push --quiet {moved}"
        );
        lab.node(node).sh(&script).success();
    };
    lab.everywhere(&format!("docker rmi {moved} 2>/dev/null || true"));
    push("n1", "ENV OWN=1");
    push("n2", "ENV OWN=2");
    let image = format!("-w n1,n2 -N2 --docker-image={moved}");
    let line = format!(
        "n1: image '{moved}': the tag resolves to a different image on node 'n2': use --docker-pull=always, or name the image by its digest"
    );
    let job = lab.alice().submit(&image, "echo it ran").wait().failed();
    assert_eq!(job.lines(), [format!("spank_docker: {line}")], "{job}");
    let srun = lab.alice().srun(&format!("{image} --docker-pull=always printenv OWN")).run().success();
    srun.printed(&["2", "2"]);
    lab.everywhere(&format!("docker rmi {moved} || true"));
    lab.assert_clean();
}

/// As in Alpine's images. Names come from the plugin's passwd and group, which musl reads too.
#[test]
fn image_with_another_c_library_runs_tasks_as_the_user() {
    let lab = Lab::get();
    let musl = image("musl");
    let outcome = lab.alice().srun(&format!("-w n1,n2 -N2 --docker-image={musl} who")).run().success();
    let who = "alice /home/alice alice physics gpuusers";
    outcome.printed(&[who, who]).said(&[]);
    lab.assert_clean();
}

#[test]
fn image_of_one_static_program_runs_by_tag_by_digest_and_by_id() {
    let lab = Lab::get();
    let (alice, n2, n3) = (lab.alice(), lab.node("n2"), lab.node("n3"));
    // No C library, no shell, no /etc.
    let name = format!("registry:5000/own/static:{}", std::process::id());
    let make = format!(
        "set -e; cd $(mktemp -d); cp /sbin/ldconfig program; tar -c program | docker import - {name} >&2
         docker push --quiet {name} >&2; rm -r $PWD
         # Podman has another digest before.
         docker rmi {name} >&2; docker pull --quiet {name} >&2
         docker inspect --format '{{{{.Id}}}}' {name}; docker inspect --format '{{{{index .RepoDigests 0}}}}' {name}"
    );
    let remove = |id: &str| format!("docker rmi --force {id} || true");
    let made = n3.sh(&make).success();
    let [id, digest] = made.lines()[..] else { panic!("{made}") };
    lab.repair_with(n2.command("").sh(&remove(id)));
    lab.repair_with(n3.command("").sh(&remove(id)));
    // n2 has to pull it by its digest; afterwards it is present under its id.
    let digits = id.strip_prefix("sha256:").expect("an id");
    // As `docker images` shows it.
    let short = &digits[..12];
    for (node, image) in [("n3", name.as_str()), ("n2", digest), ("n2", id), ("n2", digits), ("n2", short)] {
        let outcome =
            alice.srun(&format!("-w {node} --docker-image={image} /program --version")).run().success();
        assert!(outcome.stdout.starts_with("ldconfig"), "{outcome}");
        outcome.said(&[]);
    }
    // A node with another image, which has this id for its name.
    let named = format!(
        "docker image inspect {IMAGE} >/dev/null || docker pull --quiet {IMAGE}; docker tag {IMAGE} {short}"
    );
    let n1 = lab.node("n1");
    lab.repair_with(n1.command("docker rmi").args(short));
    n1.sh(&named).success();
    let line = format!(
        "n1: image '{short}': no image on this node has this id; to pull it, name it by repository and tag"
    );
    alice
        .srun(&format!("-w n1 --docker-image={short} echo it ran"))
        .run()
        .refused()
        .said(&[&line])
        .printed(&[]);
    n1.run(&format!("docker rmi {short}")).success();
    lab.everywhere(&remove(id));
    lab.assert_clean();
}

/// As some users build images for themselves: another name has the user's uid, another uid the user's name, and
/// likewise for groups.
#[test]
fn image_whose_users_and_groups_clash_with_the_nodes_has_the_nodes() {
    let lab = Lab::get();
    let alice = lab.alice();
    let lines = "RUN printf 'builder:x:5001:5001::/:/bin/false\\nalice:x:4242:4242::/nowhere:/bin/false\\n' >>/etc/passwd; \
        printf 'builders:x:5001:\\nphysics:x:4343:\\nstrangers:x:6002:alice\\n' >>/etc/group";
    let built = lab.node("n1").build("own/clash", IMAGE, lines, "");
    let who = "id; whoami; echo ~ $(stat -c '%U %G' ~)";
    let options = format!("-w n1 --docker-image={}", built.name);
    let theirs = "getent passwd builder; getent group physics strangers";
    let job = alice.submit(&options, &format!("{who}; ssh n1 \"{who}\"; {theirs}")).wait().completed();
    let id = alice.command("id").run().success();
    let own = [id.stdout.trim(), "alice", "/home/alice alice alice"];
    // Names that the image gives to these ids stay, after the node's.
    let theirs = ["builder:x:5001:5001::/:/bin/false", "physics:x:6001:alice", "strangers:x:6002:alice"];
    assert_eq!(job.lines(), [own, own, theirs].concat(), "{job}");
    lab.assert_clean();
}

/// The user's shell on the host is bash.
#[test]
fn image_without_the_users_shell_runs_scripts_and_sessions_of_another() {
    let lab = Lab::get();
    let built = lab.node("n1").build("own/no-bash", IMAGE, "RUN rm /bin/bash /bin/rbash", "");
    let script = "echo it ran on $SHELL; ssh n1 'echo $SHELL $0'; mpirun -np 1 hello; srun printenv SHELL";
    let options = format!("-w n1 --docker-image={}", built.name);
    let alice = lab.alice();
    alice.write("script", &format!("#!/bin/sh\n{script}\n"));
    let job = alice
        .submitted(&alice.command("sbatch --parsable").args("--output=%j.out").args(&options).args("script"))
        .wait()
        .completed();
    assert_eq!(
        job.lines(),
        ["it ran on /bin/sh", "/bin/sh /bin/sh", "rank 0 of 1 on n1", "/bin/sh"],
        "{job}"
    );
    lab.assert_clean();
}
