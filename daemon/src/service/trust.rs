//! A person trusts what a repository declares beyond numbers and names, or takes that back.

use std::path::PathBuf;
use std::sync::Arc;

use wtd_protocol::requests::{Revoked, Trust};
use wtd_protocol::{PathText, Problem, ProblemType};

use super::Service;
use super::resolve::discover_problem;
use crate::domain::allocation::Repository;
use crate::domain::content_hash::ContentHash;
use crate::domain::draft::{Draft, Surroundings};
use crate::domain::project::Project;
use crate::problem;
use crate::project_file;
use crate::registry::Decision;

/// A worktree's configuration as it is now.
struct Declared {
    repository: Arc<Repository>,
    root: PathBuf,
    project: Project,
    file: Option<PathBuf>,
}

impl Service {
    /// What the configuration of the worktree that holds `path` declares that takes trust.
    pub async fn trust(&self, path: PathBuf) -> Result<Trust, Problem> {
        let declared = self.declared(path).await?;
        Ok(self.told(declared))
    }

    /// Trusts the content of the configuration of the worktree that holds `path`, provided that it has this hash: a
    /// person trusts what they were shown, and nothing that has taken its place since.
    pub async fn put_trust(&self, path: PathBuf, shown: ContentHash) -> Result<Trust, Problem> {
        let declared = self.declared(path).await?;
        if declared.project.content != Some(shown) {
            let file = declared.file.unwrap_or_else(|| declared.root.join(project_file::FILE_NAME));
            return Err(Problem::new(
                ProblemType::ContentChanged,
                format!("{} is not what was to be trusted: it has changed meanwhile", file.display()),
                "look at it again with `wtd-client trust`",
            ));
        }
        let id = declared.repository.id;
        self.0
            .writer
            .commit(move |ledger, system| {
                let mut draft = Draft::new(ledger);
                draft.trust(id, shown, system.now());
                Ok((Some(Decision { ledger: draft.ledger, records: draft.records, seen: None }), ()))
            })
            .await
            .map_err(|error| problem::not_written(&error))?;
        self.apply(&declared.repository).await?;
        Ok(self.told(declared))
    }

    /// Trusts nothing of the repository that holds `path` any more. Its variables from templates vanish; the files
    /// that were kept stay as they are.
    pub async fn revoke_trust(&self, path: PathBuf) -> Result<Revoked, Problem> {
        let declared = self.declared(path).await?;
        let id = declared.repository.id;
        let contents = self
            .0
            .writer
            .commit(move |ledger, _| {
                let mut draft = Draft::new(ledger);
                let contents = draft.revoke(id);
                let decision = Decision { ledger: draft.ledger, records: draft.records, seen: None };
                Ok((Some(decision), contents))
            })
            .await
            .map_err(|error| problem::not_written(&error))?;
        self.apply(&declared.repository).await?;
        Ok(Revoked { repository: PathText::of(&declared.repository.common_dir).text, contents })
    }

    /// Has a repository's worktrees brought in line with what is trusted now.
    async fn apply(&self, repository: &Repository) -> Result<(), Problem> {
        let looked = self.0.reconciler.reconcile_now(&repository.common_dir, None).await;
        looked.map_err(|error| problem::not_written(&error))
    }

    async fn declared(&self, path: PathBuf) -> Result<Declared, Problem> {
        let found = self.discover(path.clone()).await.map_err(|error| discover_problem(&path, error))?;
        let common_dir = self.look_at(&found).await?;
        let repository =
            self.0.writer.glance().ledger.at_common_dir(&common_dir).cloned().ok_or_else(|| {
                let detail = format!("{} holds no repository any more", path.display());
                Problem::new(ProblemType::NotInAWorktree, detail, "check the path")
            })?;
        let root = found.discovered.root.unwrap_or(common_dir);
        let (at, known) = (root.clone(), Arc::clone(&repository));
        let load = move || project_file::load_with_file(&at, known.main_root.as_deref(), &known.common_dir);
        let (project, file) =
            tokio::task::spawn_blocking(load).await.map_err(|_| problem::shutting_down())?;
        Ok(Declared { repository, root, project, file })
    }

    fn told(&self, declared: Declared) -> Trust {
        let Declared { repository, root, project, file } = declared;
        let trusted = self.0.writer.glance().ledger.trusted.allows(repository.id, &project);
        let PathText { text, base64 } = PathText::of(&root);
        let templates = project.templates.iter();
        Trust {
            repository: PathText::of(&repository.common_dir).text,
            path: text,
            path_base64: base64,
            file: file.map(|file| PathText::of(&file).text),
            sha256: project.content.map(|content| content.to_string()),
            trusted,
            env: templates.map(|(name, template)| (name.to_string(), template.text().to_owned())).collect(),
            files: project
                .env_files
                .iter()
                .map(|file| file.as_path().to_string_lossy().into_owned())
                .collect(),
            database: project.database_url.map(|url| url.shown()),
            seed: project.seeds_from_main,
            warnings: project.warnings,
        }
    }
}
