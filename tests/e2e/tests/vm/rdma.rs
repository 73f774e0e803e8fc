//! Real verbs, over Soft-RoCE, between containers on two machines.

use spank_docker_e2e::{Lab, image};

#[test]
fn verbs_reach_from_container_to_container() {
    let lab = Lab::machines();
    // The client's own error is the look whether its server listens yet.
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
