//! Where results go: a file that is there whole or not at all, or standard output.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::Value;

use crate::errors::Usage;

/// A place for one text.
#[derive(Debug)]
pub enum Output {
    /// `-`: standard output.
    Stdout,
    /// A file that appears, or is replaced, when all of it is written.
    File(PathBuf),
    /// Something that is no file: a pipe, a terminal.
    Device(PathBuf),
}

impl Output {
    /// Finds out whether it can be written, so that a result is not lost to a typo. Leaves nothing behind.
    ///
    /// # Errors
    ///
    /// [`Usage`] that names the path and the reason.
    pub fn new(option: &str, path: &Path) -> Result<Self, Usage> {
        if path == Path::new("-") {
            return Ok(Self::Stdout);
        }
        let refused = |error: io::Error| {
            Usage(format!(
                "{option} '{}' cannot be written: {error}",
                path.display()
            ))
        };
        // What a link points to is replaced, not the link.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        match fs::metadata(&path) {
            Ok(data) if data.is_dir() => Err(refused(io::ErrorKind::IsADirectory.into())),
            Ok(data) if !data.is_file() => Ok(Self::Device(path)),
            _ => {
                let draft = draft(&path);
                File::create(&draft).map_err(refused)?;
                fs::remove_file(&draft).map_err(refused)?;
                Ok(Self::File(path))
            }
        }
    }

    /// Standard output is for programs: what is for people goes elsewhere.
    pub fn is_stdout(&self) -> bool {
        matches!(self, Self::Stdout)
    }

    /// Writes the object.
    ///
    /// # Errors
    ///
    /// What the operating system says; the file is then as it was.
    pub fn write(&self, object: &Value) -> anyhow::Result<()> {
        self.write_text(&format!("{object:#}\n"))
    }

    /// Writes a text.
    ///
    /// # Errors
    ///
    /// What the operating system says; the file is then as it was.
    pub fn write_text(&self, text: &str) -> anyhow::Result<()> {
        match self {
            Self::Stdout => io::stdout()
                .write_all(text.as_bytes())
                .context("writing to standard output"),
            Self::Device(path) => File::options()
                .write(true)
                .open(path)
                .and_then(|mut device| device.write_all(text.as_bytes()))
                .with_context(|| format!("writing '{}'", path.display())),
            Self::File(path) => {
                let draft = draft(path);
                let written = fs::write(&draft, text).and_then(|()| fs::rename(&draft, path));
                if written.is_err() {
                    // There may be nothing to remove.
                    let _ = fs::remove_file(&draft);
                }
                written.with_context(|| format!("writing '{}'", path.display()))
            }
        }
    }
}

/// A name beside it, so that a rename puts it into its place.
fn draft(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_there_whole_or_not_at_all() {
        let folder = std::env::temp_dir().join(format!("pollux-output-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let count = || fs::read_dir(&folder).unwrap().count();
        let output = Output::new("--json", &folder.join("a.json")).unwrap();
        assert_eq!(count(), 0, "nothing before the end");
        output.write(&Value::from(1)).unwrap();
        output.write(&Value::from(2)).unwrap();
        assert_eq!(fs::read_to_string(folder.join("a.json")).unwrap(), "2\n");
        assert_eq!(count(), 1);

        let link = folder.join("link");
        std::os::unix::fs::symlink(folder.join("a.json"), &link).unwrap();
        let linked = Output::new("--json", &link).unwrap();
        linked.write(&Value::from(3)).unwrap();
        assert_eq!(fs::read_to_string(folder.join("a.json")).unwrap(), "3\n");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());

        fs::remove_dir_all(&folder).unwrap();
        assert!(output.write(&Value::from(4)).is_err(), "the folder is gone");
    }

    #[test]
    fn what_cannot_be_written_is_named_at_the_start() {
        for path in ["/nowhere/at/all.json", "/"] {
            let error = Output::new("--json", Path::new(path)).unwrap_err();
            assert!(error.to_string().contains(&format!("'{path}'")), "{error}");
        }
        assert!(Output::new("--json", Path::new("-")).unwrap().is_stdout());
        let device = Output::new("--json", Path::new("/dev/null")).unwrap();
        assert!(matches!(device, Output::Device(_)));
        device.write(&Value::Null).unwrap();
    }
}
