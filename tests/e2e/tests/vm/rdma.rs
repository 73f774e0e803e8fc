//! Real verbs, over Soft-RoCE, between containers on two machines.

use spank_docker_e2e::{Lab, image};

#[test]
fn verbs_reach_from_container_to_container() {
    let lab = Lab::machines();
    // The client retries until its server listens.
    let script = "
        retry() { for try in 1 2 3 4 5 6 7 8 9 10; do \"$@\" && return; sleep 1; done; }
        ssh v1 ibv_devices | tail -n +3 | cut -f1 | tr -d ' '
        ssh v1 'ibv_rc_pingpong -d rxe0 -g 1 -n 20 -s 1024' >server.log 2>&1 &
        retry ibv_rc_pingpong -d rxe0 -g 1 -n 20 -s 1024 v1
        wait
        ssh v1 'ib_send_lat -d rxe0 -x 1 -n 50 -F' >server.log 2>&1 &
        retry ib_send_lat -d rxe0 -x 1 -n 50 -F v1 >latency
        grep -c '^ 2 *50 ' latency
        wait";
    let options = format!("-N2 --docker-image={}", image("rdma"));
    let job = lab.alice().submit(&options, script).wait().completed();
    assert_eq!(job.lines()[0], "rxe0", "{job}");
    assert!(job.output.contains("20 iters in"), "{job}");
    assert_eq!(job.lines().last(), Some(&"1"), "{job}");
    lab.assert_clean();
}

/// Verbs are the only transport between the nodes, as the device's counter shows. UCX selects the GID of the
/// IPv4 address by itself, on which Soft-RoCE receives nothing, so the test sets another.
#[test]
fn ranks_of_mpi_reach_each_other_with_verbs() {
    let lab = Lab::machines();
    let script = "
        sent() { cat /sys/class/infiniband/rxe0/ports/1/hw_counters/sent_pkts; }
        before=$(sent)
        mpirun --map-by node --mca pml ucx -x UCX_TLS=rc,self -x UCX_NET_DEVICES=rxe0:1 -x UCX_IB_GID_INDEX=0 hello
        echo sent $(($(sent) - before))";
    let options = format!("-N2 --ntasks-per-node=1 --docker-image={}", image("rdma"));
    let verbs = lab
        .alice()
        .srun(&format!("-w v0 --docker-image={}", image("rdma")))
        .sh("ls /usr/lib/*/ucx | grep uct_ib");
    if verbs.run().code != Some(0) {
        // Debian's UCX 1.23~rc1, in forky.
        return lab.skip("UCX in this image was built without verbs");
    }
    let job = lab.alice().submit(&options, script).wait().completed();
    let lines = job.lines();
    assert!(lines.contains(&"rank 0 of 2 on v0") && lines.contains(&"rank 1 of 2 on v1"), "{job}");
    let sent = lines.iter().find_map(|line| line.strip_prefix("sent ")?.parse::<u32>().ok());
    assert!(sent.is_some_and(|sent| sent > 10), "{job}");
    lab.assert_clean();
}
