//! What is read from git's files, against repositories that the git program makes.

#[cfg(test)]
mod absences;
#[cfg(test)]
mod allocation_files;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod discovery;
#[cfg(test)]
mod fingerprints;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod kinds;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod support;
