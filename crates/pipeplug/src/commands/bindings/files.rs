//! Files of generated code.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::exit::{CommandError, ExitReason};

use super::{HEADER, usage};

/// Bytes of a file in which its first line is looked for.
const HEAD: u64 = 200;

/// Writes files, unless one that is there was written by hand. Those that are current stay as they are.
///
/// # Errors
/// A file is not replaced, and then none is written; or it cannot be written.
pub(super) fn write(files: &[(PathBuf, String)]) -> Result<(), CommandError> {
    let mut outdated = Vec::new();
    for (path, code) in files {
        if is_outdated(path, code)? {
            outdated.push((path, code));
        }
    }
    for (path, code) in outdated {
        if let Some(parent) = path.parent().filter(|it| !it.as_os_str().is_empty()) {
            fs::create_dir_all(parent).map_err(|error| cannot_write(path, &error))?;
        }
        fs::write(path, code).map_err(|error| cannot_write(path, &error))?;
    }
    Ok(())
}

/// True if the file is not there, or was generated from something else.
fn is_outdated(path: &Path, code: &str) -> Result<bool, CommandError> {
    let shown = path.display();
    let mut file = match open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(cannot_write(path, &error)),
    };
    let Some(file) = &mut file else {
        return Err(usage(format!(
            "{shown} is not written: it is no regular file; leave out --out to write to standard output"
        )));
    };
    let failed = |error| cannot_write(path, &error);
    let mut old = Vec::new();
    file.take(HEAD).read_to_end(&mut old).map_err(failed)?;
    if !old.is_empty() && !is_generated(&old) {
        return Err(usage(format!(
            "{shown} is not replaced: it was not generated, since its first line is not the comment \
             {HEADER:?}; \
             choose another --out, or remove it"
        )));
    }
    // One byte more than the code tells that it is longer.
    file.take(code.len() as u64 + 1).read_to_end(&mut old).map_err(failed)?;
    Ok(old != code.as_bytes())
}

/// True if the first line is the header, in a comment of one of the languages.
fn is_generated(head: &[u8]) -> bool {
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii_end();
    let text = line.strip_prefix(b"# ").or_else(|| line.strip_prefix(b"// "));
    text == Some(HEADER.as_bytes())
}

/// Opens a file to read it. `None` if it is a pipe, a device and the like, which may have no end.
fn open(path: &Path) -> io::Result<Option<File>> {
    // An open of a pipe would wait for its other end.
    if fs::metadata(path)?.is_file() { File::open(path).map(Some) } else { Ok(None) }
}

fn cannot_write(path: &Path, error: &io::Error) -> CommandError {
    let message = format!("cannot write {}: {error}", path.display());
    CommandError::message(ExitReason::Failed, message)
}

/// Compares a file with the code. Writes nothing.
pub(super) fn check(path: &Path, files: &[(PathBuf, String)]) -> Result<ExitReason, CommandError> {
    let shown = path.display();
    let [(_, code)] = files else { return Err(usage("--check compares one file".into())) };
    let failed = |problem: String| CommandError::message(ExitReason::Failed, problem);
    let unread = |error: io::Error| failed(format!("cannot read {shown}: {error}"));
    let Some(file) = open(path).map_err(unread)? else {
        return Err(usage(format!("{shown} is not compared: it is no regular file")));
    };
    let mut old = Vec::new();
    // Each end of a line may be longer than that of the code.
    file.take(2 * code.len() as u64 + 1).read_to_end(&mut old).map_err(unread)?;
    if old == code.as_bytes() {
        return Ok(ExitReason::Success);
    }
    let old = String::from_utf8_lossy(&old);
    let what = if old.lines().eq(code.lines()) {
        "only its ends of lines differ, which are not all \"\\n\"; stop git or the editor from \
         changing them (in .gitattributes: `-text`), or"
            .to_owned()
    } else {
        let same = old.lines().zip(code.lines()).take_while(|(old, new)| old == new).count();
        format!("it differs from line {} on;", same + 1)
    };
    Err(failed(format!("{shown} is not current: {what} write it again by --out {shown}")))
}
