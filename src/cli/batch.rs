//! One file or many.

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
    process::ExitCode,
};

use rayon::prelude::*;

use super::{
    Failure, Global,
    progress::Progress,
    report::{FileFailure, FileReport, Report},
};

/// Which files go where.
pub struct Plan<'a> {
    /// A folder, a .txt list of files or one file.
    pub input: &'a Path,
    /// Where the results go.
    pub folder: &'a Path,
    /// Extensions of the files to take from a folder.
    pub from: &'a [&'a str],
    /// Extension of the results.
    pub to: &'a str,
    /// Make again what exists.
    pub force: bool,
    /// Files at once.
    pub threads: usize,
}

/// Runs one file.
pub fn single(
    mut report: Report<'_>,
    global: &Global,
    to_stdout: bool,
    work: impl FnOnce() -> Result<FileReport, Failure>,
) -> Result<ExitCode, Failure> {
    let started = std::time::Instant::now();
    report.files.push(work()?);
    report.print(started.elapsed().as_secs_f64(), global, to_stdout)
}

/// Runs every file of a plan, several at once. A file that fails does not stop the others.
pub fn run(
    plan: &Plan<'_>,
    mut report: Report<'_>,
    global: &Global,
    work: impl Fn(&Path, &Path, &Progress) -> Result<FileReport, Failure> + Sync,
) -> Result<ExitCode, Failure> {
    let (jobs, mut failures) = jobs(plan)?;
    let (done, jobs): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|(_, output)| !plan.force && output.exists());
    report.skipped = done.into_iter().map(|(_, output)| output).collect();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(plan.threads).build();
    let pool = pool.map_err(|e| Failure::new(format_args!("cannot start threads: {e}"), "give fewer --threads"))?;
    let progress = Progress::of_files(global.quiet, jobs.len());
    let one = |(input, output): &(PathBuf, PathBuf)| {
        let folder = output.parent().unwrap_or(plan.folder);
        let made = std::fs::create_dir_all(folder).map_err(|e| Failure::write(folder, &e));
        let result = made.and_then(|()| work(input, output, &progress));
        progress.file_done();
        result.map_err(|failure| (input.clone(), failure))
    };
    let results: Vec<_> = pool.install(|| jobs.par_iter().with_max_len(1).map(one).collect());
    for result in results {
        match result {
            Ok(file) => report.files.push(file),
            Err(failed) => failures.push(failed),
        }
    }
    report.failures = failures
        .into_iter()
        .map(|(input, failure)| FileFailure {
            input,
            error: failure.message().to_owned(),
            help: failure.help().to_owned(),
        })
        .collect();
    let elapsed = progress.elapsed();
    drop(progress);
    report.print(elapsed, global, false)
}

type Jobs = Vec<(PathBuf, PathBuf)>;

/// Input and output of every file, and those that cannot be done.
fn jobs(plan: &Plan<'_>) -> Result<(Jobs, Vec<(PathBuf, Failure)>), Failure> {
    let mut failures = Vec::new();
    let mut inputs: Vec<(PathBuf, PathBuf)> = Vec::new();
    if plan.input.is_dir() {
        for entry in walkdir::WalkDir::new(plan.input).follow_links(true).sort_by_file_name() {
            match entry {
                Ok(entry) if entry.file_type().is_file() && has_extension(entry.path(), plan.from) => {
                    let relative = entry.path().strip_prefix(plan.input).unwrap_or(entry.path()).to_owned();
                    inputs.push((entry.into_path(), relative));
                }
                Ok(_) => {}
                Err(e) => {
                    let path = e.path().unwrap_or(plan.input).to_owned();
                    let failure = Failure::new(format_args!("cannot look into {}: {e}", path.display()), "check it");
                    failures.push((path, failure));
                }
            }
        }
    } else if has_extension(plan.input, &["txt"]) {
        let text = std::fs::read_to_string(plan.input).map_err(|e| Failure::read(plan.input, &e))?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        inputs.extend(lines.map(|line| (PathBuf::from(line), inside(Path::new(line)))));
    } else {
        inputs.push((plan.input.to_owned(), inside(plan.input)));
    }
    if inputs.is_empty() && failures.is_empty() {
        return Err(Failure::new(
            format_args!("there are no files to take in {}", plan.input.display()),
            format_args!("from a folder, files with these extensions are taken: {}", plan.from.join(", ")),
        ));
    }
    let mut jobs: Jobs = Vec::new();
    let mut taken: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
    for (input, relative) in inputs {
        let output = plan.folder.join(relative).with_extension(plan.to);
        match taken.get(&output) {
            Some(other) => {
                let names = format!("{} and {}", other.display(), input.display());
                let text = format!("{names} would both become {}", output.display());
                failures.push((input, Failure::new(text, "rename one of them")));
            }
            None => {
                taken.insert(output.clone(), input.clone());
                jobs.push((input, output));
            }
        }
    }
    Ok((jobs, failures))
}

/// The path without what would lead out of the results' folder: a root, and `..`.
fn inside(path: &Path) -> PathBuf {
    path.components().filter(|c| matches!(c, Component::Normal(_))).collect()
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("");
    extensions.iter().any(|e| extension.eq_ignore_ascii_case(e))
}
