//! scontrol's record of a job, which contains the job's name and comment in the user's words; and the list of CPUs in
//! a task's environment.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spank_docker::slurm::cpu_binding;
use spank_docker::slurm::ids::JobId;
use spank_docker::slurm::scontrol_output::{JobName, parse, parse_gpus};
use spank_docker_fuzz::parts;

const JOB: JobId = JobId(7);

fuzz_target!(|data: &[u8]| {
    let [shown, name, comment] = parts(data).map(String::from_utf8_lossy);
    let _ = parse(&shown, JOB);
    assert!(parse_gpus(&shown, JOB, "n1").len() <= shown.len() * 1024);
    for kind in ["mask_cpu:", "map_cpu:", &name] {
        let cpus = cpu_binding::of_all_tasks(kind, &comment, 8).unwrap_or_default();
        assert!(cpus.len() <= comment.len() * 4 && cpus.iter().all(|cpu| *cpu < 8192));
    }
    // Whatever they are, root's commands address this job, and an admin's comment is unchanged or unknown.
    for (array, expected) in
        [("", JobName::Job(JOB)), ("ArrayJobId=5 ArrayTaskId=2 ", JobName::Element { array: 5, task: 2 })]
    {
        let record = format!(
            "JobId=7 {array}JobName={name}\n   JobState=RUNNING Reason=None\n   Requeue=1 BatchFlag=1\n   AdminComment=site\n   Comment={comment}\n"
        );
        let known = parse(&record, JOB).expect("the job is there");
        assert_eq!(known.name, expected);
        if !name.contains('\n') {
            assert_ne!(known.comment.as_deref(), Some("forged"));
            assert!(known.comment.is_none_or(|known| known == "site"));
        }
    }
});
