//! From a path to a configuration: the main file, the files it includes, everything built and
//! checked together. All or nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::build::{build, include_dir};
use super::file::{Part, read};
use super::{Config, Names, Problem, Problems, SystemResolver};

/// Loads the configuration at this path for a daemon that starts: a name in a rule that cannot be
/// looked up holds it up no longer than that takes. Blocks: it reads files and looks up host names.
///
/// # Errors
/// Everything that is wrong, at once; nothing of the configuration is to be used then.
pub fn load(path: &Path) -> Result<Config, Problems> {
    let names = Names::new(Arc::new(SystemResolver)).or_later();
    load_with(path, &names).map(|(config, _)| config)
}

/// Loads the configuration, looking up host names as told. Also gives warnings.
///
/// # Errors
/// Everything that is wrong, at once; nothing of the configuration is to be used then.
pub fn load_with(path: &Path, names: &Names) -> Result<(Config, Vec<Problem>), Problems> {
    let mut problems = Vec::new();
    let mut documents = Vec::new();
    if let Some(main) = read(path, Part::Main, &mut problems) {
        let included = include_dir(&main);
        documents.push(main);
        if let Some(dir) = included {
            let files = files_in(&dir, path, &mut problems);
            let parts = files.iter().map(|file| read(file, Part::Included, &mut problems));
            documents.extend(parts.collect::<Vec<_>>().into_iter().flatten());
        }
    }
    match build(documents, names, &mut problems) {
        (Some(config), warnings) if problems.is_empty() => Ok((config, warnings)),
        _ => {
            // As a reader of the files would meet them: the main file first, line by line.
            problems.sort_by(|a, b| {
                let place = |it: &Problem| (it.file != path, it.file.clone(), it.line);
                place(a).cmp(&place(b))
            });
            Err(Problems(problems))
        }
    }
}

/// The files to include; a directory that cannot be listed is told.
fn files_in(dir: &Path, main: &Path, problems: &mut Vec<Problem>) -> Vec<PathBuf> {
    match list(dir) {
        Ok(files) => files,
        Err(error) => {
            problems.push(Problem {
                file: main.to_owned(),
                line: None,
                key: "node.include_dir".to_owned(),
                value: Some(dir.display().to_string()),
                what: format!("cannot be listed: {error}"),
                remedy: "create the directory, or remove the key".to_owned(),
            });
            Vec::new()
        }
    }
}

/// The files of a directory that count: `*.toml` but for hidden ones, sorted by name.
pub(super) fn list(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_toml = path.extension().is_some_and(|extension| extension == "toml");
        // Editors leave hidden files behind.
        if is_toml && !name.starts_with('.') {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
