//! What an admin sees of jobs and images on a node, and how images make room for others: `spank-docker jobs`, `images`, `pull`,
//! `prune`, and the setting `image_cache`.

use spank_docker_e2e::{IMAGE, Lab, Node, image};

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
