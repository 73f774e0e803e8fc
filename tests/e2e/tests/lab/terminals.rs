//! Terminals in containers: those of Slurm and of other programs have their names there, and programs can make
//! new ones.

use spank_docker_e2e::{IMAGE, Lab};

/// A shell's script that prints its terminal's name, through that name; and the name of a new one.
const SHOW: &str = r#"t=$(tty)
echo here $(stty size) $t $(stat -c %U:%G:%a $t /dev/ptmx)
echo by its name >$t
echo another $(script -qc tty /dev/null | grep -vx $t)"#;

#[test]
fn terminal_of_a_task_or_session_has_its_name_and_programs_get_more() {
    let lab = Lab::get();
    let alice = lab.alice();
    alice.write("show", SHOW);
    let show = format!("sh {}/show", alice.directory());
    let check = |command: &str, terminals: usize| {
        let command = format!("script -qec 'stty rows 33 cols 101; {command}' /dev/null");
        let outcome = alice.command("").sh(&command).run().success();
        // At the end of its input a terminal shows what `script` types.
        let seen = outcome.stdout.replace("^@", "");
        let seen: Vec<_> = seen.lines().map(str::trim).collect();
        let count = |start: &str, end: &str| {
            seen.iter().filter(|line| line.starts_with(start) && line.ends_with(end)).count()
        };
        let counts = [
            count("here 33 101 /dev/pts/", " alice:tty:620 root:tty:666"),
            count("by its name", ""),
            count("another /dev/pts/", ""),
        ];
        assert_eq!(counts, [terminals; 3], "{outcome}");
    };
    check(&format!("srun -w n1 --pty {show}"), 1);
    // Slurm gives a terminal only to the first task.
    let on_both = format!("tty -s || exit 0; {show}; ssh -t n2 {show}");
    check(&format!("srun -w n1,n2 --ntasks-per-node=1 --docker-image={IMAGE} --pty sh -c \"{on_both}\""), 2);
    // In the step's own container, too.
    check(&format!("salloc -w n1 srun --docker-image={IMAGE} --pty {show}"), 1);
    lab.assert_clean();
}
