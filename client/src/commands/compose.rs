//! `compose`: the override that isolates the worktree's Compose project.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde_json::Value;
use wtd_protocol::compose::range;
use wtd_protocol::requests::{ComposeRequest, PathRequest};
use wtd_protocol::variable::{COMPOSE_PROJECT_NAME, PORT_OFFSET};
use wtd_protocol::{Allocation, PathText, Worktree, routes};

use crate::cli::ComposeArgs;
use crate::compose::docker::{self, Docker};
use crate::compose::files::{self, Files};
use crate::compose::model::{Model, compose_name};
use crate::compose::plan::{self, Plan, plan, unmoved};
use crate::daemon::Daemon;
use crate::environment::{Environment, absolute};
use crate::error::Error;
use crate::foreign;
use crate::output::{self, Printable, Progress};

/// What a variable is in a run of Compose; none: it is not there.
type Variables = BTreeMap<String, Option<OsString>>;

/// Prints the override, has it written, or takes it away.
pub(crate) fn run(daemon: &Daemon, args: &ComposeArgs) -> Result<(), Error> {
    let path = absolute(args.path.as_deref())?;
    if args.remove {
        let allocation = daemon.remove_override(&path)?;
        return output::styled(&format!(
            "{} has no Compose override any more; COMPOSE_FILE stays in open shells until it is unset there.\n",
            Printable(&allocation.path)
        ));
    }
    let project = Project::read(daemon, &path, &args.files)?;
    let plan = project.plan(daemon)?;
    for note in &plan.notes {
        output::note("compose", note);
    }
    // Whoever writes it again was told the first time.
    if project.allocation.compose.is_none() && !plan.left_behind.is_empty() {
        let names = plan.left_behind.join(", ");
        output::note(
            "compose",
            &format!("volumes get names of the worktree's own; what is in these stays there: {names}"),
        );
    }
    if !args.write {
        return output::bytes(plan.text.as_bytes());
    }
    let written = daemon.again().set_override(&project.request(plan)?)?;
    let file = written.compose.map(|compose| compose.file).unwrap_or_default();
    output::styled(&format!(
        "Wrote {}; COMPOSE_FILE is among the worktree's variables now. In open shells: eval \"$(wtd-client env)\"\n",
        Printable(&file)
    ))
}

/// Writes the override of a worktree that had one at another offset, for the same Compose files.
pub(crate) fn write_again(daemon: &Daemon, path: &Path, files: &[String]) -> Result<(), Error> {
    let args = ComposeArgs {
        files: files.iter().map(PathBuf::from).collect(),
        path: Some(path.to_owned()),
        write: true,
        remove: false,
    };
    run(daemon, &args).map_err(|error| {
        Error::failed(
            format!("the worktree's Compose override could not be written anew: {error}"),
            "until then docker compose publishes the ports of the project's own files",
        )
    })
}

/// The project of a worktree, as Compose reads it.
struct Project {
    allocation: Allocation,
    root: PathBuf,
    files: Files,
    docker: Docker,
    /// With the worktree's variables.
    own: Model,
    /// At another offset.
    reference: Model,
}

impl Project {
    fn read(daemon: &Daemon, path: &Path, named: &[PathBuf]) -> Result<Self, Error> {
        let allocation = daemon.allocation(path, &mut || {})?;
        let environment = Environment::of_allocation(&allocation)?;
        environment.tell_mistakes("compose");
        let _progress = Progress::of("Reading the Compose files");
        let root = environment.worktree.clone();
        let variables = own_variables(&environment);
        let written = allocation.compose.as_ref().map_or(&[][..], |compose| &compose.files);
        let start = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let files = Files::find(&root, &start, named, written, &Docker::find(&start, variables.clone())?)?;
        let docker = Docker::find(files.directory(), variables)?;
        let (own, reference) = models(&allocation, &environment, &docker, &files)?;
        Ok(Self { allocation, root, files, docker, own, reference })
    }

    /// The override: as planned, free of other worktrees' ports, and taken by Compose as it is meant.
    fn plan(&self, daemon: &Daemon) -> Result<Plan, Error> {
        let allocation = &self.allocation;
        let others: Vec<Worktree> =
            daemon.again().get(&format!("{}?state=active,missing,stale", routes::WORKTREES))?;
        let main_project = self.main_project(&others);
        let shared = |name: &&String| {
            allocation.offset != 0 && allocation.base_ports.get(*name) == allocation.ports.get(*name)
        };
        let staying: BTreeSet<u16> = allocation
            .ports
            .iter()
            .filter(|(name, _)| allocation.main && shared(name))
            .map(|(_, port)| *port)
            .collect();
        let own_database = (allocation.mode == "isolated" || allocation.main).then_some(&allocation.volume);
        let worktree = plan::Worktree {
            id: &allocation.id,
            offset: allocation.offset,
            is_main: allocation.main,
            root: &self.root,
            project: allocation.variables.get(COMPOSE_PROJECT_NAME).map(String::as_str),
            volumes: allocation.volumes.values().chain(own_database).map(String::as_str).collect(),
            shared_volumes: allocation.shared_volumes.iter().map(String::as_str).collect(),
            main_project: &main_project,
            staying,
        };
        let plan = plan(&worktree, &self.own, &self.reference)?;
        self.refuse_taken(&plan, &others)?;
        let made = self.docker.config(&self.files.paths, &[], Some(&plan.text))?.output()?;
        plan.check(&Model::parse(&made)?).map_err(|what| docker::too_old(&what))?;
        Ok(plan)
    }

    /// Fails when another allocation has a port that the project would publish.
    fn refuse_taken(&self, plan: &Plan, others: &[Worktree]) -> Result<(), Error> {
        let allocation = &self.allocation;
        let mut taken: BTreeMap<u16, String> = BTreeMap::new();
        for other in others.iter().map(|other| &other.allocation).filter(|other| other.id != allocation.id) {
            let whose = format!("{} (offset {})", other.path, other.offset);
            for (name, port) in &other.ports {
                taken.insert(*port, format!("taken by {whose}: {name}"));
            }
            let published = other.compose.iter().flat_map(|compose| &compose.ports);
            for port in published.filter_map(|text| range(text)).flatten() {
                taken
                    .entry(port)
                    .or_insert_with(|| format!("taken by {whose}, whose Compose files publish it"));
            }
            let is_sibling = other.repository == allocation.repository && other.main;
            if is_sibling && other.compose.is_none() && allocation.offset != 0 {
                for (port, service) in unmoved(&self.own, &self.reference, other.offset == 0) {
                    taken
                        .entry(port)
                        .or_insert_with(|| format!("what service {service} publishes in {whose}"));
                }
            }
        }
        // A server that worktrees share is this one's as well.
        for port in allocation.ports.values() {
            taken.remove(port);
        }
        for (port, service) in &plan.published {
            if let Some(whose) = taken.get(port) {
                return Err(Error::failed(
                    format!("service {service}: port {port} is {whose}"),
                    "declare the ports in wtd.toml's [ports] (`wtd-client init` does), then `wtd-client reassign` finds an offset for all",
                ));
            }
        }
        Ok(())
    }

    /// The Compose project of the repository's main worktree: the name in the files, else that of its directory.
    fn main_project(&self, others: &[Worktree]) -> String {
        let allocation = &self.allocation;
        let of_directory = |directory: &Path| {
            directory.file_name().map(|name| compose_name(&name.to_string_lossy())).unwrap_or_default()
        };
        let directory = self.files.directory();
        if self.reference.name != of_directory(directory) {
            return self.reference.name.clone();
        }
        let main = others
            .iter()
            .map(|other| &other.allocation)
            .find(|other| other.main && other.repository == allocation.repository)
            .and_then(|main| main.path().ok());
        match (main, directory.strip_prefix(&self.root)) {
            (Some(main), Ok(below)) => of_directory(&main.join(below)),
            _ => allocation.project.clone(),
        }
    }

    fn request(&self, plan: Plan) -> Result<ComposeRequest, Error> {
        let text = |path: &PathBuf| {
            path.to_str().map(str::to_owned).ok_or_else(|| {
                Error::failed(
                    format!("{} is not UTF-8", path.display()),
                    "move the worktree to a path in UTF-8",
                )
            })
        };
        let paths = self.files.paths.iter().map(text).collect::<Result<Vec<_>, _>>()?;
        let PathText { text: root, base64 } = PathText::of(&self.root);
        let ports: BTreeSet<u16> = plan.published.keys().copied().collect();
        Ok(ComposeRequest {
            path: PathRequest { path: root, path_base64: base64 },
            allocation: self.allocation.id.clone(),
            files_digest: self.files.digest.clone(),
            separator: files::separator(),
            files: paths,
            text: plan.text,
            ports: wtd_protocol::compose::ranges(&ports),
            volumes: plan.volumes.into_iter().collect(),
        })
    }
}

/// The worktree's variables, less those that wtd has given the shell for another one.
fn own_variables(environment: &Environment) -> Variables {
    let others = foreign::variables(environment).into_iter().map(|name| (name, None));
    others
        .chain(environment.variables.iter().map(|(name, value)| (name.clone(), Some(value.clone()))))
        .collect()
}

/// The project with the worktree's variables, and with those of another offset.
fn models(
    allocation: &Allocation,
    environment: &Environment,
    docker: &Docker,
    files: &Files,
) -> Result<(Model, Model), Error> {
    let own = docker.config(&files.paths, &[], None)?;
    let raw = docker.config(&files.paths, &["--no-interpolate"], None)?;
    let own = Model::parse(&own.output()?)?;
    let elsewhere = elsewhere(allocation);
    // A port that a variable of the project's own moves: with its default in place of the value, the base is seen.
    let mut defaults = elsewhere.clone();
    let variables = raw.output().map(|raw| defaulted(&raw)).unwrap_or_default();
    let foreign = variables.into_iter().filter(|name| !environment.variables.contains_key(name));
    defaults.extend(foreign.map(|name| (name, Some(OsString::new()))));
    let read = |variables: &Variables| {
        Model::parse(&docker.with(variables).config(&files.paths, &[], None)?.output()?)
    };
    let reference = match read(&defaults) {
        Ok(reference) => reference,
        // The variable is needed elsewhere in the files.
        Err(_) => read(&elsewhere)?,
    };
    Ok((own, reference))
}

/// What the worktree's variables would be at another offset, as far as they name ports and volumes: at 0, or at 10000
/// where the worktree's own is 0. As in a main worktree, there is no project's name.
fn elsewhere(allocation: &Allocation) -> Variables {
    let offset: u16 = if allocation.offset == 0 { 10000 } else { 0 };
    let other = |name: &str| {
        let stem =
            name.strip_suffix(&allocation.offset.to_string()).filter(|stem| stem.ends_with(['_', '-']));
        stem.map(|stem| format!("{stem}{offset}"))
    };
    let mut variables: BTreeMap<String, Option<String>> = allocation
        .variables
        .iter()
        .filter(|(name, _)| !allocation.ports.contains_key(*name))
        .filter_map(|(name, value)| Some((name.clone(), Some(other(value)?))))
        .collect();
    variables.insert(PORT_OFFSET.to_owned(), Some(offset.to_string()));
    variables.insert(COMPOSE_PROJECT_NAME.to_owned(), None);
    for (name, base) in &allocation.base_ports {
        let is_shared = allocation.offset != 0 && allocation.ports.get(name) == Some(base);
        let port = base.checked_add(offset).filter(|_| !is_shared).unwrap_or(*base);
        variables.insert(name.clone(), Some(port.to_string()));
    }
    variables.into_iter().map(|(name, value)| (name, value.map(OsString::from))).collect()
}

/// Variables with a default that stands in for an empty value too (`${NAME:-default}`), in the published ports of a
/// project that was read without interpolation.
fn defaulted(raw: &[u8]) -> BTreeSet<String> {
    let raw: Value = serde_json::from_slice(raw).unwrap_or_default();
    let services = raw.get("services").and_then(Value::as_object);
    let ports = services
        .into_iter()
        .flat_map(|services| services.values())
        .filter_map(|service| service.get("ports")?.as_array())
        .flatten();
    let texts = ports.filter_map(|port| port.as_str().or_else(|| port.get("published")?.as_str()));
    let mut names = BTreeSet::new();
    for text in texts {
        for part in text.split("${").skip(1) {
            if let Some((name, _)) = part.split_once(":-")
                && !name.is_empty()
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            {
                names.insert(name.to_owned());
            }
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_with_defaults_are_found_in_ports_only() {
        let raw = r#"{"services": {"a": {"ports": ["${A:-1}:1", {"published": "${B:-2}", "target": 2}, 3, "${C}:3", "${D:?x}:4", "${E-5}:5"],
            "environment": {"F": "${F:-6}"}}, "b": {"ports": null}}}"#;
        assert_eq!(defaulted(raw.as_bytes()).into_iter().collect::<Vec<_>>(), ["A", "B"]);
        assert!(defaulted(b"").is_empty());
    }
}
