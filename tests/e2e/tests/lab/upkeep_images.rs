//! What an admin sees of jobs and images on a node, and how images make room for others: `spank-docker jobs`, `images`, `pull`,
//! `prune`, and the setting `image_cache`.

use spank_docker_e2e::{IMAGE, Lab, Node, image};

use crate::hostile_image::at_once;

const USES: &str = "/var/lib/spank-docker/images";

/// The line about an image, as fields: without its age, which passes.
fn line(node: &Node<'_>, name: &str) -> Option<Vec<String>> {
    let listed = node.run("spank-docker images").success();
    assert!(listed.stdout.starts_with("IMAGE "), "{listed}");
    let line = listed.lines().into_iter().find(|line| line.starts_with(&format!("{name}:latest ")))?;
    let fields = line.split("  ").map(str::trim).filter(|field| !field.is_empty());
    Some(fields.map(str::to_owned).collect())
}

fn removed(node: &Node<'_>, options: &str) -> Vec<String> {
    let outcome = node.run(&format!("spank-docker prune {options}")).success();
    let mut lines: Vec<String> = outcome.lines().into_iter().map(str::to_owned).collect();
    lines.pop().expect("the sum");
    lines
}

#[test]
fn images_that_jobs_have_brought_go_and_those_of_an_admin_stay() {
    let lab = Lab::alone();
    let (alice, n2) = (lab.alice(), lab.node("n2"));
    let (jobs, admins) = (image("musl"), image("nossh"));
    // What other tests have used is not to be pulled again after this one.
    let hide = format!("install -d {USES}; mv {USES} {USES}.hidden; docker rmi --force {jobs} {admins}");
    lab.repair_with(n2.command("").sh(&format!("rm -rf {USES}; mv {USES}.hidden {USES}")));
    n2.sh(&hide);

    let pulled = n2.run(&format!("spank-docker pull {admins} hpc/nowhere:1"));
    assert!(pulled.stdout.starts_with(&format!("{admins} sha256:")), "{pulled}");
    assert_eq!(pulled.code, Some(1), "{pulled}");
    assert!(pulled.stderr.starts_with("spank-docker: image 'hpc/nowhere:1': "), "{pulled}");
    let fields = line(&n2, &admins).expect("listed");
    assert_eq!(fields[3..], ["-", "0", "admin", "unused"]);

    // The container is gone a moment after srun.
    let run = |image: &str| {
        drop(alice.srun(&format!("-w n2 --docker-image={image} /bin/true")).run());
        lab.assert_clean();
    };
    run(&jobs);
    run(&admins);
    let fields = line(&n2, &jobs).expect("listed");
    assert_eq!(fields[4..], ["1", "job", "unused"]);
    assert_eq!(line(&n2, &admins).expect("listed")[4..], ["1", "admin", "unused"]);
    assert_eq!(removed(&n2, "--dry-run"), [format!("would remove {jobs}:latest")]);
    assert_eq!(removed(&n2, "--to 100G"), [""; 0]);
    assert_eq!(removed(&n2, "--to 0"), [format!("removed {jobs}:latest")]);
    assert!(line(&n2, &jobs).is_none() && line(&n2, &admins).is_some());
    let wrong = n2.run("spank-docker prune --to much");
    assert_eq!(wrong.code, Some(3), "{wrong}");

    lab.with_arguments("n2", "memlock=inherit image_cache=0", || {
        run(&jobs);
        run(&admins);
        let is_gone = || line(&n2, &jobs).is_none().then_some(());
        assert!(lab.poll(is_gone).is_some(), "{jobs} stays");
        assert!(line(&n2, &admins).is_some());
    });
    lab.assert_clean();
}

#[test]
fn containers_of_jobs_are_listed_with_what_an_admin_asks_of_them() {
    let lab = Lab::alone();
    let (alice, n2) = (lab.alice(), lab.node("n2"));
    assert_eq!(n2.run("spank-docker jobs --json").success().stdout, "[]\n");
    let job = alice.submit_image("-w n2", "echo begun; sleep 60 & sleep 60");
    job.wait_for_line("begun");
    let listed = n2.run("spank-docker jobs").success();
    let fields: Vec<_> = listed.lines()[1].split_whitespace().map(str::to_owned).collect();
    let digest = n2.sh(&format!("docker inspect --format '{{{{index .RepoDigests 0}}}}' {IMAGE}")).stdout;
    let digest = digest.trim().split_once('@').expect("a digest").1.to_owned();
    let expected = [job.id.to_string(), "alice".into(), IMAGE.into(), digest[..19].into()];
    assert_eq!(fields[..4], expected, "{listed}");
    // sshd, the first process or what has become of it, the script and its two children.
    let processes: u32 = fields[6].parse().expect("a number");
    assert!((4..8).contains(&processes), "{listed}");
    assert_eq!(fields[8], "running", "{listed}");
    let json = n2.run("spank-docker jobs --json").success();
    for part in [
        format!("\"job\":{},\"step\":null,\"user\":\"alice\",\"uid\":5001,\"image\":\"{IMAGE}\"", job.id),
        format!("\"digest\":\"{digest}\",\"container\":\"docker_{}\"", job.id),
    ] {
        assert!(json.stdout.contains(&part), "{json}");
    }
    // In use, whoever has brought it.
    assert!(removed(&n2, "--dry-run").iter().all(|line| !line.contains(IMAGE)));
    alice.command("scancel").arg(job.id.to_string()).run().success();
    let is_empty = || (n2.run("spank-docker jobs --json").stdout == "[]\n").then_some(());
    assert!(lab.poll(is_empty).is_some());
    let refused = n2.run("runuser -u alice -- spank-docker jobs");
    assert_eq!(refused.stderr, "spank-docker: jobs needs root: run it as root\n", "{refused}");
    lab.assert_clean();
}

/// In the engines' terms at Docker Hub, which the far registry stands for.
const FAR: &str = "own/far:1";

/// On n1: a registry that stands for one far away, a mirror of it, and what each was asked for; in the far one an image of one
/// static program and 4 MB that cannot be compressed.
const MIRROR: &str = r#"
set -e
mkdir -p /tmp/mirror/far /tmp/mirror/mirror
cd /tmp/mirror
serve() { # NAME PORT PROXY
    printf '%s\n' 'version: 0.1' 'log: {level: error}' "storage: {filesystem: {rootdirectory: /tmp/mirror/$1}}" \
        "http: {addr: ':$2'}" "$3" >$1.yml
    OTEL_TRACES_EXPORTER=none setsid docker-registry serve $1.yml >>$1.log 2>>$1.errors </dev/null &
    echo $! >>pids
    until [ "$(ss --no-header --listening --tcp "sport = $2" | wc -l)" = 1 ]; do
        kill -0 $! 2>/dev/null || { cat $1.errors >&2; exit 1; }
        sleep 0.05
    done
}
# The mirror ends if the far registry does not answer when it begins.
serve far 5011 ''
serve mirror 5012 'proxy: {remoteurl: "http://127.0.0.1:5011"}'
cp /sbin/ldconfig program
head -c 4000000 /dev/urandom >unique
tar -c program unique | docker import - localhost:5011/own/far:1
docker push --quiet localhost:5011/own/far:1
docker rmi localhost:5011/own/far:1
: >far.log
"#;

/// As admin's guide has it. A setting that is only gone from the file stays in force.
const USE_MIRROR: &str = r#"
sed -i '0,/{/s|{|{"registry-mirrors": ["http://n1:5012"],|' /etc/docker/daemon.json
kill -HUP $(cat /run/docker.pid)
until docker info --format '{{.RegistryConfig.Mirrors}}' | grep -q n1:5012; do sleep 0.05; done"#;

const FORGET_MIRROR: &str = r#"
docker rmi --force own/far:1
[ ! -e /tmp/mirror/pids ] || kill $(cat /tmp/mirror/pids)
rm -rf /tmp/mirror
sed -i 's|"http://n1:5012"||' /etc/docker/daemon.json
kill -HUP $(cat /run/docker.pid)
while docker info --format '{{.RegistryConfig.Mirrors}}' | grep -q n1:5012; do sleep 0.05; done
install -m 0644 /lab/daemon.json /etc/docker/daemon.json"#;

#[test]
fn mirror_asks_the_far_registry_for_an_image_once_for_all_nodes_and_jobs() {
    let lab = Lab::alone();
    let (alice, n1, n2) = (lab.alice(), lab.node("n1"), lab.node("n2"));
    if lab.is_podman() {
        return lab.skip("Podman has its mirrors in registries.conf");
    }
    if n1.run("docker info --format {{.DriverStatus}}").stdout.contains("io.containerd.snapshotter") {
        return lab.skip("with containerd's image store an engine asks a mirror over TLS alone");
    }
    for node in ["n1", "n2", "n3"] {
        lab.repair_with(lab.node(node).command("").sh(FORGET_MIRROR));
    }
    n1.sh(MIRROR).success();
    lab.everywhere(USE_MIRROR);
    let runs = |options: &str| {
        let outcome =
            alice.srun(&format!("{options} --docker-image={FAR} /program --version")).run().success();
        assert!(outcome.stdout.starts_with("ldconfig"), "{outcome}");
    };
    // The requests for the layer, by their size.
    let layers = |log: &str| {
        let count = format!("awk '/GET .*blobs/ && $10 > 3000000' /tmp/mirror/{log}.log | wc -l");
        n1.sh(&count).success().stdout.trim().parse::<u32>().expect("a number")
    };
    runs("-w n1");
    // It keeps the layer meanwhile, or afterwards.
    let keeps =
        || (n1.sh("find /tmp/mirror/mirror -name data -size +3M | grep .").code == Some(0)).then_some(());
    assert!(lab.poll(keeps).is_some(), "the mirror has no layer");
    let (far, mirror) = (layers("far"), layers("mirror"));
    assert!(far >= 1 && mirror == 1, "{far} {mirror}");
    runs("-w n2,n3 -N2");
    assert_eq!((layers("far"), layers("mirror")), (far, 3));

    // Its container may be going still.
    lab.assert_clean();
    n2.run(&format!("docker rmi {FAR}")).success();
    at_once(&["-w n2"; 4], |options| runs(options));
    assert_eq!((layers("far"), layers("mirror")), (far, 4));
    lab.assert_clean();
    lab.everywhere(FORGET_MIRROR);
}
