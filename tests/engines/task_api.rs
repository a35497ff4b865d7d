//! The service of the shim, called without containerd.

use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use containerd_shim_protos::api;
use containerd_shim_protos::protobuf::Message;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::json;

use crate::harness::shim::{self, Shim, V2, V3};
use crate::harness::ttrpc::{ALREADY_EXISTS, Status, UNIMPLEMENTED, receive_events};
use crate::harness::{Case, Route, cgroups, leaks, processes, wait_until};

on_every_shim! {
    a_life,
    a_life_under_the_other_name,
    an_exec,
    errors_have_codes,
    a_wait_is_answered_at_the_exit,
    tasks_that_end_at_once,
    a_living_task_keeps_the_shim,
    a_pod_shares_a_shim,
    runc_groups_share_a_shim,
    an_update,
    statistics,
    a_reader_that_goes_away,
    a_reader_that_does_not_read,
    a_stream_that_does_not_exist,
    events_wait_for_their_receiver,
    the_action_delete_of_nothing,
    a_killed_shim_is_cleared_up,
    many_calls_at_once,
}

const FOREVER: &str = "trap 'exit 3' TERM; while :; do sleep 0.02; done";

fn code<T>(result: &Result<T, Status>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(status) => format!("error {}", status.code),
    }
}

/// The parts of a state that are no numbers of the host.
fn note_state(c: &mut Case, shim: &Shim, exec: &str) {
    let state = shim.state(&shim.id, exec).expect("state");
    let text = format!(
        "id {} bundle {} status {:?} pid {} streams {:?}{:?}{:?} terminal {} code {} exited {}",
        state.id,
        state.bundle,
        state.status.enum_value(),
        state.pid != 0,
        state.stdin,
        state.stdout,
        state.stderr,
        state.terminal,
        state.exit_status,
        // Go's zero time is some time before 1970.
        state.exited_at.seconds > 0,
    );
    c.note("state", &text);
}

fn a_life(c: &mut Case) {
    let shim = Shim::start(c, "a", FOREVER);
    live(c, &shim);
    shim.end(c);
}

/// From `Create` to `Delete`.
fn live(c: &mut Case, shim: &Shim) {
    let id = shim.id.clone();
    let pid = shim.create(&id).expect("create");
    assert!(processes::is_alive(pid as i32));
    note_state(c, shim, "");
    let connected = shim.connect(&id).expect("connect");
    assert_eq!(connected.task_pid, pid);
    assert!(processes::is_alive(connected.shim_pid as i32));
    assert_eq!(shim.start_task(&id, ""), Ok(pid));
    processes::wait_until_it_catches(pid as i32, Signal::SIGTERM);
    note_state(c, shim, "");
    let mut request = api::PidsRequest::new();
    request.id.clone_from(&id);
    let pids: api::PidsResponse = shim.call("Pids", &request).expect("pids");
    assert!(pids.processes.iter().any(|process| process.pid == pid));
    let mut request = api::PauseRequest::new();
    request.id.clone_from(&id);
    assert_eq!(shim.order("Pause", &request), Ok(()));
    note_state(c, shim, "");
    c.note("delete while paused", &code(&shim.delete(&id, "")));
    let mut request = api::ResumeRequest::new();
    request.id.clone_from(&id);
    assert_eq!(shim.order("Resume", &request), Ok(()));
    note_state(c, shim, "");
    assert_eq!(shim.kill(&id, "", 15, false), Ok(()));
    assert_eq!(shim.wait(&id, ""), Ok(3));
    note_state(c, shim, "");
    assert_eq!(shim.wait(&id, ""), Ok(3), "again");
    let deleted = shim.delete(&id, "").expect("delete");
    assert_eq!((deleted.pid, deleted.exit_status), (pid, 3));
    assert!(deleted.exited_at.is_some());
    c.note("state", &code(&shim.state(&id, "")));
    c.note("wait", &code(&shim.wait(&id, "")));
    assert!(
        leaks::mounts(&shim.bundle.to_string_lossy()).is_empty(),
        "the root is mounted"
    );
}

/// runc's shims know one name each; ours answers under both.
fn a_life_under_the_other_name(c: &mut Case) {
    if c.route != Route::Shim {
        return;
    }
    let mut shim = Shim::start(c, "a", FOREVER);
    let other = if shim.service() == V2 { V3 } else { V2 };
    shim.call_as(other);
    let mut quiet = std::mem::take(&mut c.transcript);
    live(c, &shim);
    shim.end(c);
    std::mem::swap(&mut quiet, &mut c.transcript);
}

fn an_exec(c: &mut Case) {
    let shim = Shim::start(c, "a", FOREVER);
    let id = shim.id.clone();
    shim.create(&id).expect("create");
    c.note(
        "exec before the start",
        &code(&shim.exec(&id, "early", "true")),
    );
    shim.start_task(&id, "").expect("start");
    assert_eq!(shim.exec(&id, "x", FOREVER), Ok(()));
    note_state(c, &shim, "x");
    c.note("the id is taken", &code(&shim.exec(&id, "x", "true")));
    c.note(
        "kill before the start",
        &code(&shim.kill(&id, "x", 15, false)),
    );
    let pid = shim.start_task(&id, "x").expect("start of the exec");
    assert!(processes::is_alive(pid as i32));
    note_state(c, &shim, "x");
    c.note("delete of a running exec", &code(&shim.delete(&id, "x")));
    processes::wait_until_it_catches(pid as i32, Signal::SIGTERM);
    assert_eq!(shim.kill(&id, "x", 15, false), Ok(()));
    assert_eq!(shim.wait(&id, "x"), Ok(3));
    note_state(c, &shim, "x");
    c.note(
        "kill of a dead exec",
        &code(&shim.kill(&id, "x", 15, false)),
    );
    assert_eq!(shim.delete(&id, "x").expect("delete").exit_status, 3);
    c.note("state of a deleted exec", &code(&shim.state(&id, "x")));
    // Never started.
    assert_eq!(shim.exec(&id, "y", "true"), Ok(()));
    c.note(
        "delete of an exec that never ran",
        &code(&shim.delete(&id, "y")),
    );
    shim.end(c);
}

fn errors_have_codes(c: &mut Case) {
    let shim = Shim::start(c, "a", FOREVER);
    let id = shim.id.clone();
    for who in ["nosuch", id.as_str()] {
        note_errors(c, &shim, who);
    }
    shim.create(&id).expect("create");
    let again = code(&shim.create(&id));
    // runc's shim finds out by the failure of runc.
    assert!(again.starts_with("error"), "{again}");
    if c.route == Route::Shim {
        assert_eq!(again, format!("error {ALREADY_EXISTS}"));
    }
    c.note("pause before the start", &code(&order(&shim, "Pause", &id)));
    c.note(
        "resume before the start",
        &code(&order(&shim, "Resume", &id)),
    );
    c.note("delete before the start", &code(&shim.delete(&id, "")));
    shim.create(&id).expect("create once more");
    shim.start_task(&id, "").expect("start");
    c.note("start again", &code(&shim.start_task(&id, "")));
    c.note("delete while it runs", &code(&shim.delete(&id, "")));
    c.note("resume while it runs", &code(&order(&shim, "Resume", &id)));
    c.note("resize without a terminal", &code(&resize(&shim, &id, "")));
    c.note(
        "state of an unknown exec",
        &code(&shim.state(&id, "nosuch")),
    );
    c.note(
        "start of an unknown exec",
        &code(&shim.start_task(&id, "nosuch")),
    );
    c.note("wait of an unknown exec", &code(&shim.wait(&id, "nosuch")));
    c.note(
        "delete of an unknown exec",
        &code(&shim.delete(&id, "nosuch")),
    );
    c.note(
        "kill of an unknown exec",
        &code(&shim.kill(&id, "nosuch", 9, false)),
    );
    let unknown = shim.call::<api::Empty>("NoSuchMethod", &api::Empty::new());
    c.note("an unknown method", &code(&unknown));
    if c.route == Route::Shim {
        let mut request = api::CheckpointTaskRequest::new();
        request.id.clone_from(&id);
        request.path = "/nowhere".into();
        let refused = shim.order("Checkpoint", &request);
        assert_eq!(refused.map_err(|status| status.code), Err(UNIMPLEMENTED));
    }
    shim.kill(&id, "", 9, false).expect("kill");
    shim.wait(&id, "").expect("wait");
    c.note("kill of the dead", &code(&shim.kill(&id, "", 9, false)));
    c.note("pause of the dead", &code(&order(&shim, "Pause", &id)));
    c.note("exec in the dead", &code(&shim.exec(&id, "late", "true")));
    c.note("start of the dead", &code(&shim.start_task(&id, "")));
    shim.end(c);
}

fn order(shim: &Shim, method: &str, id: &str) -> Result<(), Status> {
    // Pause and Resume have the same one field.
    let mut request = api::PauseRequest::new();
    request.id = id.to_owned();
    shim.order(method, &request)
}

fn resize(shim: &Shim, id: &str, exec: &str) -> Result<(), Status> {
    let mut request = api::ResizePtyRequest::new();
    request.id = id.to_owned();
    request.exec_id = exec.to_owned();
    request.width = 80;
    request.height = 24;
    shim.order("ResizePty", &request)
}

/// Every method for a container that is not there.
fn note_errors(c: &mut Case, shim: &Shim, id: &str) {
    let codes = [
        ("State", code(&shim.state(id, ""))),
        ("Start", code(&shim.start_task(id, ""))),
        ("Delete", code(&shim.delete(id, ""))),
        ("Pause", code(&order(shim, "Pause", id))),
        ("Resume", code(&order(shim, "Resume", id))),
        ("Kill", code(&shim.kill(id, "", 9, false))),
        ("Exec", code(&shim.exec(id, "x", "true"))),
        ("ResizePty", code(&resize(shim, id, ""))),
        ("Wait", code(&shim.wait(id, ""))),
        // `id` is field 1 of each of these too. Not here: Checkpoint, for which runc's shim ends the call
        // without an answer.
        ("Pids", code(&order(shim, "Pids", id))),
        ("Stats", code(&order(shim, "Stats", id))),
        ("CloseIO", code(&order(shim, "CloseIO", id))),
    ];
    for (method, code) in codes {
        c.note(method, &code);
    }
}

fn a_wait_is_answered_at_the_exit(c: &mut Case) {
    let shim = Shim::start(c, "a", FOREVER);
    let id = shim.id.clone();
    shim.create(&id).expect("create");
    // Before the start, and twice on one connection.
    let mut waiting = shim.client();
    let calls = [
        waiting.send("Wait", &shim::wait_request(&id, "")),
        waiting.send("Wait", &shim::wait_request(&id, "")),
    ];
    let pid = shim.start_task(&id, "").expect("start");
    processes::wait_until_it_catches(pid as i32, Signal::SIGTERM);
    shim.kill(&id, "", 15, false).expect("kill");
    for _ in calls {
        let (call, response) = waiting.receive();
        assert!(calls.contains(&call));
        let answer: api::WaitResponse = crate::harness::ttrpc::parse(response).expect("wait");
        assert_eq!(answer.exit_status, 3);
        assert!(answer.exited_at.is_some());
    }
    shim.end(c);
}

fn tasks_that_end_at_once(c: &mut Case) {
    let shim = Shim::start(c, "a", FOREVER);
    let id = shim.id.clone();
    shim.create(&id).expect("create");
    shim.start_task(&id, "").expect("start");
    for round in 0..20 {
        let exec = format!("x{round}");
        shim.exec(&id, &exec, &format!("exit {round}"))
            .expect("exec");
        shim.start_task(&id, &exec).expect("start of the exec");
        assert_eq!(shim.wait(&id, &exec), Ok(round));
        assert_eq!(shim.delete(&id, &exec).expect("delete").exit_status, round);
    }
    shim.end(c);
}

fn a_living_task_keeps_the_shim(c: &mut Case) {
    let shim = Shim::start(c, "a", FOREVER);
    let id = shim.id.clone();
    shim.create(&id).expect("create");
    shim.start_task(&id, "").expect("start");
    assert_eq!(shim.shutdown(&id), Ok(()));
    std::thread::sleep(Duration::from_millis(500));
    note_state(c, &shim, "");
    let again = shim::command(c, &shim.bundle, &id, Path::new(""))
        .arg("start")
        .output();
    c.note("start again", &again.code.to_string());
    shim.end(c);
}

fn a_pod_shares_a_shim(c: &mut Case) {
    share(c, "io.kubernetes.cri.sandbox-id");
}

fn runc_groups_share_a_shim(c: &mut Case) {
    share(c, "io.containerd.runc.v2.group");
}

fn share(c: &mut Case, annotation: &str) {
    let group = c.id("a");
    let first = Shim::start_with(c, "a", FOREVER, |spec| {
        spec["annotations"] = json!({annotation: group})
    });
    first.create(&first.id).expect("create");
    let pid = first.start_task(&first.id, "").expect("start");
    processes::wait_until_it_catches(pid as i32, Signal::SIGTERM);
    let second = Shim::start_with(c, "b", FOREVER, |spec| {
        spec["annotations"] = json!({annotation: group})
    });
    assert_eq!(first.socket, second.socket);
    let shim_pid = first.connect(&first.id).expect("connect").shim_pid;
    second.create(&second.id).expect("create");
    second.start_task(&second.id, "").expect("start");
    assert_eq!(
        second.connect(&second.id).expect("connect").shim_pid,
        shim_pid
    );
    note_state(c, &first, "");
    note_state(c, &second, "");
    // The one that ends takes nothing with it.
    first.kill(&first.id, "", 15, false).expect("kill");
    assert_eq!(first.wait(&first.id, ""), Ok(3));
    first.delete(&first.id, "").expect("delete");
    assert_eq!(first.shutdown(&first.id), Ok(()));
    first.delete_action(c);
    std::thread::sleep(Duration::from_millis(300));
    note_state(c, &second, "");
    fs::remove_dir_all(&first.bundle).expect("the first bundle");
    second.end(c);
}

fn an_update(c: &mut Case) {
    let shim = Shim::start_with(c, "a", FOREVER, |spec| {
        spec["linux"]["resources"]["memory"] = json!({"limit": 40 << 20});
    });
    let id = shim.id.clone();
    shim.create(&id).expect("create");
    shim.start_task(&id, "").expect("start");
    let limit = |c: &Case| c.cgroup_file("a", "memory.limit_in_bytes");
    assert_eq!(limit(c), (40 << 20).to_string());
    let update = |resources: serde_json::Value| {
        let mut request = api::UpdateTaskRequest::new();
        request.id.clone_from(&id);
        let url = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";
        request.resources = Some(shim::any(url, &resources)).into();
        shim.order("Update", &request)
    };
    assert_eq!(update(json!({"memory": {"limit": 30 << 20}})), Ok(()));
    assert_eq!(limit(c), (30 << 20).to_string());
    assert_eq!(update(json!({"cpu": {"shares": 512}})), Ok(()));
    let shares = cgroups::by_version("512", "20");
    assert_eq!(c.cgroup_file("a", "cpu.shares"), shares);
    assert_eq!(
        limit(c),
        (30 << 20).to_string(),
        "nobody asked for another limit"
    );
    c.note(
        "a limit below what is used",
        &code(&update(json!({"memory": {"limit": 4096}}))),
    );
    c.note("no limit at all", &code(&update(json!({}))));
    let mut request = api::UpdateTaskRequest::new();
    request.id.clone_from(&id);
    request.resources = Some(shim::any("no/such/type", &json!({}))).into();
    // runc's shim takes it for no resources.
    let unknown = shim.order("Update", &request);
    if c.route == Route::Shim {
        assert!(unknown.is_err(), "resources of an unknown type");
    }
    shim.end(c);
}

fn statistics(c: &mut Case) {
    let shim = Shim::start(c, "a", FOREVER);
    let id = shim.id.clone();
    shim.create(&id).expect("create");
    shim.start_task(&id, "").expect("start");
    let mut request = api::StatsRequest::new();
    request.id.clone_from(&id);
    let answer: api::StatsResponse = shim.call("Stats", &request).expect("stats");
    c.note("type", &answer.stats.type_url);
    assert!(answer.stats.value.len() > 100);
    shim.end(c);
}

/// A shim with a container whose output goes to FIFOs; their reading ends.
fn with_fifos(c: &mut Case, script: &str) -> (Shim, [File; 2]) {
    let shim = Shim::start(c, "a", script);
    let paths = ["out", "err"].map(|name| shim.bundle.join(name));
    let readers = paths.each_ref().map(|path| {
        mkfifo(path, Mode::from_bits_truncate(0o700)).expect("fifo");
        let mut options = File::options();
        options
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .expect("fifo")
    });
    let [stdout, stderr] = paths.map(|path| path.to_string_lossy().into_owned());
    let created = shim.create_with(&shim.id, |request| {
        request.stdout = stdout;
        request.stderr = stderr;
    });
    created.expect("create");
    (shim, readers)
}

fn a_reader_that_goes_away(c: &mut Case) {
    let script = "trap 'exit 5' PIPE; seq 1 100000; echo err >&2; exit 4";
    let (shim, readers) = with_fifos(c, script);
    note_state(c, &shim, "");
    drop(readers);
    shim.start_task(&shim.id, "").expect("start");
    std::thread::sleep(Duration::from_millis(500));
    // Whether it waits for a reader or has ended: it can be ended.
    let _ = shim.kill(&shim.id, "", 9, false);
    assert!(shim.wait(&shim.id, "").is_ok());
    shim.end(c);
}

fn a_reader_that_does_not_read(c: &mut Case) {
    let (shim, readers) = with_fifos(c, "seq 1 1000000; exit 4");
    shim.start_task(&shim.id, "").expect("start");
    std::thread::sleep(Duration::from_millis(500));
    note_state(c, &shim, "");
    shim.kill(&shim.id, "", 9, false).expect("kill");
    assert_eq!(shim.wait(&shim.id, ""), Ok(137));
    let began = Instant::now();
    shim.delete(&shim.id, "").expect("delete");
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "delete waits for the reader"
    );
    drop(readers);
    shim.end(c);
}

fn a_stream_that_does_not_exist(c: &mut Case) {
    let shim = Shim::start(c, "a", "echo out; exit 4");
    let id = shim.id.clone();
    let created = shim.create_with(&id, |request| request.stdout = "/no/such/dir/fifo".into());
    c.note("create", &code(&created));
    shim.shutdown(&shim.id).expect("shutdown");
    let bundle = shim.bundle.display().to_string();
    assert!(leaks::mounts(&bundle).is_empty(), "the root is mounted");
    fs::remove_dir_all(&shim.bundle).expect("bundle");
}

fn events_wait_for_their_receiver(c: &mut Case) {
    let dir = tempfile::tempdir().expect("directory");
    let socket = dir.path().join("events");
    let shim = Shim::start_below(c, "a", "exit 4", |_| {}, &socket);
    let id = shim.id.clone();
    shim.create(&id).expect("create");
    shim.start_task(&id, "").expect("start");
    assert_eq!(shim.wait(&id, ""), Ok(4));
    let topics = receive_events(&socket);
    let mut seen = Vec::new();
    wait_until("the exit is told", || {
        seen.extend(topics.try_iter());
        seen.iter().any(|topic| topic == "/tasks/exit")
    });
    if c.route == Route::Shim {
        // runc's shim sends what failed again, in no order, and may give up on it.
        assert_eq!(seen, ["/tasks/create", "/tasks/start", "/tasks/exit"]);
    }
    shim.end(c);
}

/// Of a container that never was, which runc's shim cannot.
fn the_action_delete_of_nothing(c: &mut Case) {
    let shim = Shim::start(c, "a", FOREVER);
    if c.route == Route::Shim {
        let ttrpc = c.daemon.dir().join("c.sock.ttrpc");
        let mut command = shim::command(c, &shim.bundle, &shim.id, &ttrpc)
            .arg("delete")
            .into_inner();
        let output = command.stdin(Stdio::null()).output().expect("run");
        assert!(output.status.success());
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        let answer = api::DeleteResponse::parse_from_bytes(&output.stdout).expect("DeleteResponse");
        assert_eq!(answer.exit_status, 137);
    }
    shim.shutdown(&shim.id).expect("shutdown");
    fs::remove_dir_all(&shim.bundle).expect("bundle");
}

fn a_killed_shim_is_cleared_up(c: &mut Case) {
    let shim = Shim::start(c, "a", FOREVER);
    let id = shim.id.clone();
    let task = shim.create(&id).expect("create");
    shim.start_task(&id, "").expect("start");
    let pid = shim.connect(&id).expect("connect").shim_pid as i32;
    let bundle = shim.bundle.clone();
    shim.kill_shim_and_clear(c, pid);
    wait_until("the container is gone", || {
        !processes::is_alive(task as i32)
    });
    assert!(!bundle.exists());
}

fn many_calls_at_once(c: &mut Case) {
    let shim = Shim::start(c, "a", FOREVER);
    let id = shim.id.clone();
    shim.create(&id).expect("create");
    shim.start_task(&id, "").expect("start");
    std::thread::scope(|scope| {
        for worker in 0..8 {
            let (shim, id) = (&shim, &id);
            scope.spawn(move || {
                let mut client = shim.client();
                for round in 0..50 {
                    let mut request = api::StateRequest::new();
                    request.id.clone_from(id);
                    let state: api::StateResponse = client.call("State", &request).expect("state");
                    assert_ne!(state.pid, 0, "{worker} {round}");
                }
            });
        }
    });
    shim.end(c);
}
