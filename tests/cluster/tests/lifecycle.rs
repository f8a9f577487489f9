//! The cluster's own life: up, disturbed, down, and nothing left. Needs root and what
//! scripts/apt.sh, go-tools.sh and cluster-images.sh provide; each test has a cluster of its own.

mod common;

use common::{TestCluster, one_at_a_time, until};
use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);

/// A pod that stays until it is killed.
const SLEEPER: [&str; 6] = [
    "run",
    "sleeper",
    "--image=localhost/vlft/busybox:1",
    "--restart=Never",
    "--command",
    "--",
];

#[test]
fn it_is_up_quickly_and_leaves_nothing() {
    let _turn = one_at_a_time();
    let cluster = TestCluster::new("lt-up");
    let began = Instant::now();
    cluster.must(&["up"]);
    let took = began.elapsed();
    let traces = cluster.traces();
    cluster.load_busybox();
    cluster.kubectl(&[&SLEEPER[..], &["sleep", "1000"]].concat());
    cluster.kubectl(&[
        "wait",
        "--for=condition=Ready",
        "pod/sleeper",
        "--timeout=60s",
    ]);
    assert!(cluster.must(&["status"]).contains("node2-kubelet"));
    assert!(
        !cluster.processes_of(&traces).is_empty(),
        "no process was found: the check is blind"
    );
    cluster.must(&["down"]);
    cluster.assert_gone(&traces);
    cluster.must(&["down"]);
    eprintln!("up took {:.1} s", took.as_secs_f32());
    // 15 s on a machine of its own; here it may share two cores with a build.
    assert!(took < MINUTE, "up took {took:?}");
}

#[test]
fn a_killed_component_comes_back_and_teardown_is_still_whole() {
    let _turn = one_at_a_time();
    let cluster = TestCluster::new("lt-kill");
    cluster.must(&["up"]);
    let traces = cluster.traces();
    cluster.load_busybox();
    cluster.kubectl(&[&SLEEPER[..], &["sleep", "1000"]].concat());
    cluster.kubectl(&[
        "wait",
        "--for=condition=Ready",
        "pod/sleeper",
        "--timeout=60s",
    ]);
    for component in [
        "kube-apiserver",
        "node1-containerd",
        "node1-kubelet",
        "coredns",
    ] {
        let before = cluster.process(component).unwrap();
        cluster.must(&["signal", component, "KILL"]);
        until("it to be restarted", MINUTE, || {
            cluster.process(component).is_some_and(|now| now != before)
        });
    }
    until("the API to answer again", MINUTE, || {
        cluster.try_kubectl(&["get", "--raw", "/readyz"])
    });
    cluster.kubectl(&[
        "wait",
        "--for=condition=Ready",
        "nodes",
        "--all",
        "--timeout=60s",
    ]);
    // Two more without waiting, then the end.
    cluster.must(&["signal", "node1-containerd", "KILL"]);
    cluster.must(&["signal", "node2-kubelet", "STOP"]);
    cluster.must(&["down"]);
    cluster.assert_gone(&traces);
}

#[test]
fn an_up_that_is_killed_half_way_leaves_nothing() {
    let _turn = one_at_a_time();
    let cluster = TestCluster::new("lt-half");
    for delay in [50, 400, 1500, 4000] {
        let mut up = cluster.start(&["up"]);
        std::thread::sleep(Duration::from_millis(delay));
        let traces = cluster.traces();
        up.kill().unwrap();
        up.wait().unwrap();
        // Its processes end by themselves: nobody needs to know that there was a cluster.
        until("its processes to end", MINUTE, || {
            cluster.processes_of(&traces).is_empty()
        });
        cluster.must(&["down"]);
        cluster.assert_gone(&traces);
    }
}

#[test]
fn an_interrupted_up_takes_everything_down_itself() {
    let _turn = one_at_a_time();
    let cluster = TestCluster::new("lt-int");
    let mut up = cluster.start(&["up"]);
    std::thread::sleep(Duration::from_millis(2500));
    let traces = cluster.traces();
    cluster.run("kill", &["-INT", &up.id().to_string()]);
    let status = up.wait().unwrap();
    assert!(!status.success(), "it was up before the interrupt");
    cluster.assert_gone(&traces);
}

#[test]
fn a_second_up_replaces_a_cluster_whose_first_process_was_killed() {
    let _turn = one_at_a_time();
    let cluster = TestCluster::new("lt-again");
    cluster.must(&["up", "--nodes", "1"]);
    let traces = cluster.traces();
    cluster.run(
        "kill",
        &["-KILL", &cluster.init_process().unwrap().to_string()],
    );
    until("all processes to end", MINUTE, || {
        cluster.processes_of(&traces).is_empty()
    });
    let error = cluster.fails(&["status"]);
    assert!(error.contains("has ended"), "{error}");
    cluster.must(&["up", "--nodes", "1"]);
    let second = cluster.traces();
    cluster.must(&["down"]);
    cluster.assert_gone(&traces);
    cluster.assert_gone(&second);
}

#[test]
fn a_cut_node_is_lost_and_a_mended_one_returns() {
    let _turn = one_at_a_time();
    let cluster = TestCluster::new("lt-cut");
    cluster.must(&["up"]);
    let traces = cluster.traces();
    cluster.must(&["cut", "node2"]);
    let ready = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
    let state = |node: &str| cluster.kubectl(&["get", "node", node, "-o", ready]);
    until("node2 to be lost", MINUTE, || state("node2") == "Unknown");
    assert_eq!(state("node1"), "True");
    cluster.must(&["mend", "node2"]);
    until("node2 to return", MINUTE, || state("node2") == "True");
    let error = cluster.fails(&["cut", "node7"]);
    assert!(error.contains("there are node1, node2"), "{error}");
    cluster.must(&["down"]);
    cluster.assert_gone(&traces);
}

/// A claim of the class `limited` that is full after 1 MiB, and a pod that fills it.
const FULL_DISK: &str = r#"
apiVersion: v1
kind: PersistentVolumeClaim
metadata: { name: small }
spec:
  storageClassName: limited
  accessModes: [ReadWriteOnce]
  resources: { requests: { storage: 1Mi } }
---
apiVersion: v1
kind: Pod
metadata: { name: filler }
spec:
  restartPolicy: Never
  containers:
    - name: main
      image: localhost/vlft/busybox:1
      command: [sh, -c, "dd if=/dev/zero of=/small/file bs=64k count=64"]
      volumeMounts: [{ name: small, mountPath: /small }]
  volumes: [{ name: small, persistentVolumeClaim: { claimName: small } }]
"#;

#[test]
fn volumes_can_be_full_and_are_removed_with_their_claim() {
    let _turn = one_at_a_time();
    let cluster = TestCluster::new("lt-full");
    cluster.must(&["up", "--nodes", "1"]);
    let traces = cluster.traces();
    cluster.load_busybox();
    cluster.apply(FULL_DISK);
    cluster.kubectl(&[
        "wait",
        "--for=jsonpath={.status.phase}=Failed",
        "pod/filler",
        "--timeout=60s",
    ]);
    let said = cluster.kubectl(&["logs", "filler"]);
    assert!(said.contains("No space left on device"), "{said}");
    assert_eq!(cluster.volumes().len(), 1);
    cluster.kubectl(&[
        "delete",
        "pod/filler",
        "pvc/small",
        "--grace-period=0",
        "--force",
    ]);
    until("its folder to be removed", MINUTE, || {
        cluster.volumes().is_empty()
    });
    cluster.must(&["down"]);
    cluster.assert_gone(&traces);
}

/// The machine's servers can be reached from pods, and the pods' network from the machine.
#[test]
fn the_machine_and_the_pods_reach_each_other() {
    let _turn = one_at_a_time();
    let cluster = TestCluster::new("lt-net");
    cluster.must(&["up", "--nodes", "1"]);
    let traces = cluster.traces();
    let server = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = server.local_addr().unwrap().port().to_string();
    let machine = cluster.machine_address();
    let client = cluster.must_start(&[
        "exec",
        "--node",
        "node1",
        "--",
        "bash",
        "-c",
        &format!("exec 3<>/dev/tcp/{machine}/{port}; read -t 20 word <&3; echo got $word"),
    ]);
    let (mut connection, _) = server.accept().unwrap();
    std::io::Write::write_all(&mut connection, b"hello\n").unwrap();
    let output = client.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "got hello");
    cluster.must(&["down"]);
    cluster.assert_gone(&traces);
}
