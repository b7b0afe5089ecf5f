use std::cell::Cell;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use rustix::fs::{CWD, mknodat};
use tempfile::TempDir;

use super::*;
use crate::directory;

fn edit(directory: &Path, edit: impl Fn(&[u8]) -> Vec<u8>) -> Result<Kept, Why> {
    let opened = directory::open(directory).unwrap();
    replace(&opened, OsStr::new("file"), NewFile::ByUmask, &|content| Ok(edit(content)))
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn added(content: &[u8]) -> Vec<u8> {
    [content, b"+"].concat()
}

#[test]
fn a_file_is_made_replaced_and_left_alone() {
    let scratch = TempDir::new().unwrap();
    let file = scratch.path().join("file");
    assert_eq!(edit(scratch.path(), |_| b"one".to_vec()).unwrap(), Kept::Written);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let before = fs::metadata(&file).unwrap();
    assert_eq!(edit(scratch.path(), <[u8]>::to_vec).unwrap(), Kept::Unchanged);
    let after = fs::metadata(&file).unwrap();
    assert_eq!((before.ino(), before.mtime_nsec()), (after.ino(), after.mtime_nsec()));
    assert_eq!(edit(scratch.path(), added).unwrap(), Kept::Written);
    assert_eq!(fs::read(&file).unwrap(), b"one+");
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o640);
    assert_eq!(names(scratch.path()), ["file"]);
}

/// The edit stands for the moment between reading and replacing, in which an editor saves the file.
#[test]
fn what_is_saved_meanwhile_is_edited_and_not_lost() {
    for (by_rename, is_new) in [(true, false), (false, false), (true, true), (false, true)] {
        let scratch = TempDir::new().unwrap();
        let file = scratch.path().join("file");
        if !is_new {
            fs::write(&file, "before\n").unwrap();
        }
        let calls = Cell::new(0);
        let saved = |content: &[u8]| {
            calls.set(calls.get() + 1);
            // The first call is before the lock.
            if calls.get() == 2 {
                let place = if by_rename { scratch.path().join("saved") } else { file.clone() };
                fs::write(&place, "a person's\n").unwrap();
                fs::rename(&place, &file).unwrap();
            }
            added(content)
        };
        assert_eq!(edit(scratch.path(), saved).unwrap(), Kept::Written);
        assert_eq!(fs::read_to_string(&file).unwrap(), "a person's\n+");
        assert_eq!(names(scratch.path()), ["file"]);
    }
}

#[test]
fn a_file_that_is_replaced_by_something_else_meanwhile_is_refused_and_stays() {
    let scratch = TempDir::new().unwrap();
    let file = scratch.path().join("file");
    fs::write(&file, "before").unwrap();
    fs::write(scratch.path().join("other"), "other's").unwrap();
    let calls = Cell::new(0);
    let swapped = |content: &[u8]| {
        calls.set(calls.get() + 1);
        if calls.get() == 2 {
            fs::remove_file(&file).unwrap();
            symlink("other", &file).unwrap();
        }
        added(content)
    };
    assert!(matches!(edit(scratch.path(), swapped), Err(Why::Link)));
    assert_eq!(fs::read_link(&file).unwrap(), Path::new("other"));
    assert_eq!(fs::read(scratch.path().join("other")).unwrap(), b"other's");
    assert_eq!(names(scratch.path()), ["file", "other"]);
}

#[test]
fn a_file_that_others_never_leave_alone_is_given_up() {
    let scratch = TempDir::new().unwrap();
    let file = scratch.path().join("file");
    let calls = Cell::new(0);
    let restless = |content: &[u8]| {
        calls.set(calls.get() + 1);
        fs::write(&file, calls.get().to_string()).unwrap();
        added(content)
    };
    assert!(matches!(edit(scratch.path(), restless), Err(Why::Busy)));
    assert_eq!(fs::read_to_string(&file).unwrap(), calls.get().to_string());
    assert_eq!(names(scratch.path()), ["file"]);
}

#[test]
fn only_a_writable_regular_file_is_replaced() {
    let refused = |make: &dyn Fn(&Path)| {
        let scratch = TempDir::new().unwrap();
        let file = scratch.path().join("file");
        make(&file);
        let before = fs::symlink_metadata(&file).unwrap();
        let why = edit(scratch.path(), added).unwrap_err();
        let after = fs::symlink_metadata(&file).unwrap();
        assert_eq!((before.ino(), before.mode(), before.len()), (after.ino(), after.mode(), after.len()));
        assert!(!names(scratch.path()).iter().any(|name| name.starts_with(".wtd-")));
        why
    };
    assert!(matches!(refused(&|file| symlink("absent", file).unwrap()), Why::Link));
    assert!(matches!(refused(&|file| symlink("/dev/null", file).unwrap()), Why::Link));
    assert!(matches!(refused(&|file| fs::create_dir(file).unwrap()), Why::NotRegular));
    let fifo = |file: &Path| mknodat(CWD, file, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    assert!(matches!(refused(&fifo), Why::NotRegular));
    let read_only = |file: &Path| {
        fs::write(file, "x").unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(0o444)).unwrap();
    };
    assert!(matches!(refused(&read_only), Why::ReadOnly));
    let large = |file: &Path| File::create(file).unwrap().set_len(MAX_BYTES as u64 + 1).unwrap();
    assert!(matches!(refused(&large), Why::TooLarge));
}

#[test]
fn writers_wait_for_each_other() {
    let scratch = TempDir::new().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| assert_eq!(edit(scratch.path(), added).unwrap(), Kept::Written));
        }
    });
    assert_eq!(fs::read(scratch.path().join("file")).unwrap(), b"+".repeat(20));
    assert_eq!(names(scratch.path()), ["file"]);
}

#[test]
fn a_file_of_a_drafts_name_is_somebody_elses() {
    let scratch = TempDir::new().unwrap();
    let name = format!(".wtd-{}-0.tmp", std::process::id());
    fs::write(scratch.path().join(&name), "a person's").unwrap();
    edit(scratch.path(), added).unwrap();
    edit(scratch.path(), added).unwrap();
    assert_eq!(names(scratch.path()), [name.as_str(), "file"]);
    assert_eq!(fs::read(scratch.path().join(&name)).unwrap(), b"a person's");
}

/// Replaces the file by a draft; `saved` is called after each exchange, with its number.
fn exchange(scratch: &TempDir, saved: &mut dyn FnMut(usize)) -> Result<bool, Why> {
    let directory = directory::open(scratch.path()).unwrap();
    let name = OsStr::new("file");
    let current = read(&directory, name).unwrap();
    let draft = Draft::write(&directory, name, b"draft", current.as_ref(), NewFile::ByUmask).unwrap();
    // The first save, which the draft takes the place of.
    saved(0);
    draft.put_in_place(name, current.as_ref(), saved)
}

#[test]
fn what_is_saved_while_a_save_is_put_back_is_the_one_that_stays() {
    for saves in 1..5 {
        for by_rename in [true, false] {
            let scratch = TempDir::new().unwrap();
            let file = scratch.path().join("file");
            fs::write(&file, "before").unwrap();
            let mut save = |number: usize| {
                if number < saves {
                    let place = if by_rename { scratch.path().join("new") } else { file.clone() };
                    fs::write(&place, format!("save {number}")).unwrap();
                    fs::rename(&place, &file).unwrap();
                }
            };
            assert!(!exchange(&scratch, &mut save).unwrap(), "{saves}");
            assert_eq!(fs::read_to_string(&file).unwrap(), format!("save {}", saves - 1));
            assert_eq!(names(scratch.path()), ["file"]);
        }
    }
}

#[test]
fn a_save_that_cannot_be_put_back_is_kept_beside_the_file() {
    let scratch = TempDir::new().unwrap();
    let file = scratch.path().join("file");
    fs::write(&file, "before").unwrap();
    let mut save = |number: usize| fs::write(&file, format!("save {number}")).unwrap();
    assert!(matches!(exchange(&scratch, &mut save), Err(Why::Busy)));
    let kept = names(scratch.path()).into_iter().find(|name| name.contains(".saved")).unwrap();
    assert!(fs::read_to_string(scratch.path().join(kept)).unwrap().starts_with("save "));
}

#[test]
fn drafts_of_writers_that_were_killed_are_swept_and_what_may_be_a_save_is_not() {
    let scratch = TempDir::new().unwrap();
    // No process has this id: it is above the kernel's limit (proc_sys_kernel(5)).
    let (dead, alive) = (1 << 30, std::process::id());
    let left = [format!(".wtd-{dead}-0.tmp"), format!(".wtd-{dead}-12.tmp")];
    let kept = [
        format!(".wtd-{dead}-0.saved"),
        format!(".wtd-{alive}-7.tmp"),
        ".wtd-notes.tmp".to_owned(),
        format!(".wtd-{dead}-x.tmp"),
    ];
    for name in left.iter().chain(&kept) {
        fs::write(scratch.path().join(name), "x").unwrap();
    }
    assert_eq!(edit(scratch.path(), added).unwrap(), Kept::Written);
    let mut expected: Vec<String> = kept.into_iter().chain(["file".to_owned()]).collect();
    expected.sort();
    assert_eq!(names(scratch.path()), expected);
}
