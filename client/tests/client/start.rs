//! Starting a daemon when none answers. The daemon here is a script that puts the socket of the test's server
//! where it was told to serve.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::support::{Sandbox, Server, allocation, answer, run};

/// A sandbox with a server at `real`, and a `wtd` on PATH that runs `script`.
fn with_daemon(script: &str) -> (Sandbox, Server) {
    let sandbox = Sandbox::new();
    let server = Server::at(sandbox.path("real"), |_, stream| {
        stream.write_all(&answer(200, &allocation(Path::new("/w"), &[]))).unwrap();
    });
    let dir = sandbox.path("").display().to_string();
    let program = sandbox.write("bin/wtd", &format!("#!/bin/sh\nhere={dir}\n{script}\n"));
    fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
    (sandbox, server)
}

/// Lets the client start what is on PATH.
fn may_start<'a>(sandbox: &Sandbox, command: &'a mut Command) -> &'a mut Command {
    let path = std::env::var("PATH").unwrap();
    command
        .env_remove("WTD_NO_START")
        .env("PATH", format!("relative:{}:{path}", sandbox.path("bin").display()))
        .env("WTD_SOCKET", sandbox.path("s"))
}

/// The client, which may start what is on PATH.
fn starting(sandbox: &Sandbox, arguments: &[&str]) -> Command {
    let mut command = sandbox.client(arguments);
    may_start(sandbox, &mut command);
    command
}

#[test]
fn a_daemon_is_started_detached_with_an_environment_of_its_own() {
    let (sandbox, _server) = with_daemon(
        "pwd > $here/pwd; echo \"$@\" > $here/arguments; env > $here/env; ls -l /proc/$$/fd > $here/fds
         ln -s $here/real $3; echo ready",
    );
    let mut client = starting(&sandbox, &["get", "PORT_OFFSET"]);
    client.env("GIT_DIR", "/x").env("LD_LIBRARY_PATH", "/x").env("WTD_LOG", "debug").env("SECRET", "x");
    assert_eq!(run(&mut client).done(), "10000\n");
    let read = |name: &str| fs::read_to_string(sandbox.path(name)).unwrap();
    assert_eq!(read("pwd"), "/\n");
    assert_eq!(read("arguments"), format!("--detached --socket {}\n", sandbox.path("s").display()));
    let environment = read("env");
    for kept in ["HOME=", "XDG_RUNTIME_DIR=", "WTD_LOG=debug", "PATH=", "LC_ALL="] {
        assert!(environment.contains(kept), "{environment}");
    }
    for dropped in ["GIT_", "LD_", "SECRET"] {
        assert!(!environment.contains(dropped), "{environment}");
    }
    let descriptors = read("fds");
    assert!(
        descriptors.contains("0 -> /dev/null") && descriptors.contains("2 -> /dev/null"),
        "{descriptors}"
    );
}

#[test]
fn a_started_daemon_is_no_child_of_the_command_that_exec_runs() {
    let (sandbox, _server) =
        with_daemon("ln -s $here/real $3; echo $$ > $here/pid; echo ready; exec sleep 60 >/dev/null");
    let script = "read children < /proc/$$/task/$$/children; echo \"[$children]\"";
    let ended = run(&mut starting(&sandbox, &["exec", "sh", "-c", script]));
    let pid = fs::read_to_string(sandbox.path("pid")).unwrap();
    assert!(sandbox.command("kill").arg(pid.trim()).status().unwrap().success());
    assert_eq!(ended.done(), "[]\n");
}

#[test]
fn another_daemon_that_was_quicker_is_as_good() {
    let (sandbox, _server) = with_daemon("(sleep 0.1; ln -s $here/real $3) >/dev/null 2>&1 &");
    assert_eq!(run(&mut starting(&sandbox, &["get", "PORT_OFFSET", "--timeout", "20s"])).done(), "10000\n");
}

#[test]
fn a_daemon_that_ends_or_never_serves_is_given_up() {
    for script in ["exit 1", "exec sleep 5", "echo ready"] {
        let (sandbox, _server) = with_daemon(script);
        let repository = sandbox.repository("r");
        let mut client = starting(&sandbox, &["env", "--timeout", "200ms"]);
        run(client.current_dir(&repository)).failed(4, "was started, and nothing answers");
    }
}

#[test]
fn no_daemon_is_started_where_that_is_forbidden() {
    for forbid in ["--no-start", "WTD_NO_START"] {
        let (sandbox, _server) = with_daemon("touch $here/started");
        let mut client = starting(&sandbox, &["list"]);
        if forbid == "--no-start" {
            client.arg(forbid);
        } else {
            client.env(forbid, "1");
        }
        run(&mut client).failed(4, "no daemon answers");
        assert!(!sandbox.path("started").exists());
    }
    let (sandbox, _server) = with_daemon("touch $here/started");
    run(&mut starting(&sandbox, &["status"])).failed(4, "no daemon answers");
    assert!(!sandbox.path("started").exists());
}

#[test]
fn a_daemon_in_the_working_directory_is_not_started() {
    let sandbox = Sandbox::new();
    for dir in ["", "relative/"] {
        let program = sandbox.write(&format!("{dir}wtd"), "#!/bin/sh\ntouch started\n");
        fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut client = starting(&sandbox, &["list"]);
    client.env("PATH", "relative::.");
    run(&mut client).failed(4, "no `wtd`");
    assert!(!sandbox.path("started").exists());
}

#[test]
fn the_socket_unit_is_started_where_it_is_installed_and_a_manager_answers() {
    let (sandbox, _server) =
        with_daemon("touch $here/started; ln -s $here/real $here/run/wtd/wtd.sock; echo ready");
    let systemctl =
        "echo \"$@\" > $here/systemctl; mkdir -p $here/run/wtd; ln -s $here/real $here/run/wtd/wtd.sock";
    let here = sandbox.path("").display().to_string();
    let program = sandbox.write("bin/systemctl", &format!("#!/bin/sh\nhere={here}\n{systemctl}\n"));
    fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir_all(sandbox.path("run/systemd")).unwrap();
    let manager = std::os::unix::net::UnixListener::bind(sandbox.path("run/systemd/private")).unwrap();
    sandbox.write("home/.config/systemd/user/wtd.socket", "[Socket]\n");
    let mut client = starting(&sandbox, &["get", "PORT_OFFSET", "--timeout=20s"]);
    client.env_remove("WTD_SOCKET");
    assert_eq!(run(&mut client).done(), "10000\n");
    let arguments = fs::read_to_string(sandbox.path("systemctl")).unwrap();
    assert!(arguments.contains("--user") && arguments.ends_with("start wtd.socket\n"), "{arguments}");
    assert!(!sandbox.path("started").exists());
    // Without a manager, the daemon itself is started.
    fs::remove_file(sandbox.path("run/wtd/wtd.sock")).unwrap();
    drop(manager);
    assert_eq!(run(&mut client).done(), "10000\n");
    assert!(sandbox.path("started").exists());
}
