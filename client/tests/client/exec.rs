//! `exec`: the client becomes the command.

use std::path::Path;

use crate::support::{Sandbox, Server, allocation, answer, run};

fn server(sandbox: &Sandbox) -> Server {
    Server::saying(sandbox, answer(200, &allocation(Path::new("/w"), &[("UI_PORT", "13000")])))
}

#[test]
fn the_command_runs_under_the_variables_and_its_exit_code_is_given_on() {
    let sandbox = Sandbox::new();
    let server = server(&sandbox);
    let script = "echo $PORT_OFFSET $UI_PORT \"$@\"; exit 42";
    let ended = server.run(&sandbox, &["exec", "--", "sh", "-c", script, "sh", "--path", "a b"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(42), "10000 13000 --path a b\n"), "{ended:?}");
}

#[test]
fn the_command_takes_the_clients_place() {
    let sandbox = Sandbox::new();
    let server = server(&sandbox);
    let mut client = server.client(&sandbox, &["exec", "sh", "-c", "echo $$"]);
    let child = client.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let id = child.id();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{id}\n"));
}

#[test]
fn a_command_that_cannot_run_fails_as_in_a_shell() {
    let sandbox = Sandbox::new();
    let server = server(&sandbox);
    server.run(&sandbox, &["exec", "no-such-command"]).failed(127, "no-such-command");
    let file = sandbox.write("not-executable", "");
    server.run(&sandbox, &["exec", file.to_str().unwrap()]).failed(126, "not-executable");
}

#[test]
fn another_worktrees_project_does_not_reach_the_command() {
    let sandbox = Sandbox::new();
    let server = server(&sandbox);
    let mut client = server.client(&sandbox, &["exec", "sh", "-c", "echo ${COMPOSE_PROJECT_NAME-unset}"]);
    client.env("PORT_OFFSET", "20000").env("COMPOSE_PROJECT_NAME", "x-20000");
    assert_eq!(run(&mut client).done(), "unset\n");
    assert_eq!(run(client.env("COMPOSE_PROJECT_NAME", "mine")).done(), "mine\n");
}
