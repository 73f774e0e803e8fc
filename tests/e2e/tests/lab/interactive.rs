//! What docs/interactive.md promises beside terminals and windows: ssh from a login node into a running job.

use spank_docker_e2e::Lab;

const PAGE: &str = include_str!("../../../../docs/interactive.md");

/// A stand-in for a notebook's server, which listens on the node's loopback address only.
const SERVER: &str = r#"use strict; use IO::Socket::INET; alarm 90; $| = 1;
my $server = IO::Socket::INET->new(LocalAddr => "127.0.0.1", Listen => 5) or die $!;
print "up ", $server->sockport, "\n";
while (my $client = $server->accept) { print $client "notebook\n"; close $client }"#;

#[test]
fn ssh_from_a_login_node_leads_into_the_container_of_a_job() {
    let lab = Lab::get();
    let bob = lab.user("bob");
    let block = PAGE.split("```").find(|block| block.starts_with("\nHost job-")).expect("a configuration");
    bob.write("config", block);
    bob.write("server", SERVER);
    // No other test has keys in this directory.
    lab.repair_with(bob.command("rm -rf /home/bob/.ssh"));
    let job = bob.submit_image("-w n2 --docker-mount-home", "perl server");
    let port = lab.poll(|| job.output().lines().find_map(|line| Some(line.strip_prefix("up ")?.to_owned())));
    let script = format!(
        "ssh-keygen -q -t ed25519 -N '' -f key; install -d -m 700 ~/.ssh; cp key.pub ~/.ssh/authorized_keys
         to='-F config -i key -o BatchMode=yes' job=job-{}
         ssh $to $job 'echo $(hostname) $SLURM_JOB_DOCKER_CONTAINER; cat; exit 3' <config | head -n 2; echo code ${{PIPESTATUS[0]}}
         echo copied >file; scp -q $to file $job:/tmp/; ssh $to $job cat /tmp/file
         ssh $to -W localhost:{} $job </dev/null; ssh $to bob@$job -p 9 hostname
         rm -r ~/.ssh; ssh $to $job echo without a key 2>&1 | grep -o 'Permission denied'",
        job.id,
        port.expect("a server")
    );
    let outcome = bob.command("bash -c").arg(script).run();
    job.cancel();
    let container = format!("n2 docker_{}", job.id);
    let expected = [&container, "", "code 3", "copied", "notebook", "n2", "Permission denied"];
    assert_eq!(outcome.stdout.lines().collect::<Vec<_>>(), expected, "{outcome}");
    lab.assert_clean();
}
