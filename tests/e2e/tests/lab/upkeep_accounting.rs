//! Which images run here: the note in AdminComment (`accounting=admin_comment`), and the line about each start in slurmd's
//! log.

use spank_docker_e2e::{IMAGE, Lab, Node, image};

/// The value of a metric.
fn metric(node: &Node<'_>, name: &str) -> Option<u64> {
    let shown = node.run("spank-docker metrics").success();
    let line = shown.stdout.lines().find_map(|line| line.strip_prefix(&format!("spank_docker_{name} ")));
    line.map(|value| value.parse().expect("a number"))
}

#[test]
fn metrics_count_starts_and_failures_across_a_restart_of_slurmd() {
    const FILE: &str = "/var/lib/spank-docker/counters.json";
    let lab = Lab::alone();
    let (alice, n2) = (lab.alice(), lab.node("n2"));
    let names = [
        "container_starts_total{owner=\"job\"}",
        "container_start_failures_total{reason=\"image\"}",
        "container_start_duration_seconds_count",
        "container_start_phase_duration_seconds_count{phase=\"start\"}",
    ];
    let counters = || names.map(|name| metric(&n2, name).unwrap_or(0));
    let before = counters();
    alice.srun_image("-w n2 true").run().success();
    alice.srun("-w n2 --docker-image=registry:5000/hpc/nowhere true").run().failure();
    n2.run("lab-slurmd restart").success();
    let after = counters();
    assert_eq!([0, 1, 2, 3].map(|place| after[place] - before[place]), [2, 1, 1, 1]);
    assert_eq!(metric(&n2, "engine_up"), Some(1));
    assert_eq!(metric(&n2, "containers{state=\"running\"}"), Some(0));
    assert!(metric(&n2, "images_bytes{origin=\"job\"}").is_some());
    n2.sh("spank-docker metrics --output /run/lab.prom && grep -q '^spank_docker_engine_up 1$' /run/lab.prom && rm /run/lab.prom*")
        .success();
    // What is damaged counts nothing and costs no job.
    lab.repair_with(
        n2.command("").sh(&format!("mv -f {FILE}.kept {FILE}; rm -f /var/lib/spank-docker/counters.broken")),
    );
    n2.sh(&format!("cp {FILE} {FILE}.kept && echo '{{' >{FILE}")).success();
    assert_eq!(metric(&n2, names[0]), None);
    alice.srun_image("-w n2 true").run().success();
    assert_eq!(metric(&n2, names[0]), Some(1));
    lab.assert_clean();
}

#[test]
fn image_of_a_job_is_noted_once_after_the_text_of_the_site() {
    let lab = Lab::alone();
    let (alice, n2) = (lab.alice(), lab.node("n2"));
    let scontrol = |words: &str| n2.sh(&format!("scontrol {words}")).success();
    let comment = |job: u32| {
        let shown = scontrol(&format!("show job {job}")).stdout;
        let line = shown.lines().find_map(|line| line.strip_prefix("   AdminComment="));
        line.map(|line| line.trim_end().to_owned()).unwrap_or_default()
    };
    // From 26.05 on, the job's command line is shown too.
    let noted = "scontrol show job $SLURM_JOB_ID | grep -q spank_docker:.image=";
    let wait = format!("timeout 10 sh -c 'until {noted}; do sleep 0.05; done'");
    lab.with_arguments("n2", "memlock=inherit accounting=admin_comment", || {
        let options = "--hold -w n2,n3 -N2 --docker-mounts=/tmp:/a\\\"b:ro";
        let job = alice.submit_image(options, &format!("{wait} && srun true"));
        scontrol(&format!("update JobId={0} AdminComment='of | the site'; scontrol release {0}", job.id));
        let id = job.wait().completed().id;
        let text = comment(id);
        let digest =
            text.strip_prefix(&format!("of | the site | spank_docker: image={IMAGE} digest=sha256:"));
        assert!(digest.is_some_and(|digest| digest.len() == 64), "{text}");
        if lab.keeps_accounts() {
            let sacct = || lab.accounted(&format!("--allocations --jobs={id}"), "AdminComment");
            assert!(lab.poll(|| (sacct() == [text.clone()]).then_some(())).is_some(), "{:?}", sacct());
        }
        for node in ["n2", "n3"] {
            let log = format!("grep 'spank_docker: event=start job={id} ' /var/log/slurm/slurmd.log");
            let line = lab.node(node).sh(&log).success().stdout;
            let parts = [
                format!(" event=start job={id} result=ok uid=5001 user=alice node={node} restart=0 seconds="),
                format!(" image={IMAGE} digest=sha256:"),
                r#" mounts="/tmp:/a\"b:ro""#.to_owned(),
            ];
            assert!(parts.iter().all(|part| line.contains(part)) && line.lines().count() == 1, "{line}");
        }
        // Of a job without an image the first step with one counts.
        let nossh = image("nossh");
        let step = |image: &str| format!("srun --docker-image={image} true");
        let job = alice.submit("-w n2", &format!("{}; {}", step(&nossh), step(IMAGE))).wait();
        let text = comment(job.completed().id);
        assert!(text.starts_with(&format!("spank_docker: image={nossh} digest=sha256:")), "{text}");
        assert_eq!(text.matches("image=").count(), 1, "{text}");
    });
    lab.assert_clean();
}
