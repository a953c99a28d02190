//! Cassandra's jars, fetched once.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const VERSION: &str = "5.0.4";

/// The folder with Cassandra and everything that it depends on.
pub(super) fn jars() -> Result<PathBuf, String> {
    let java = Command::new("java").arg("-version").output();
    if !java.is_ok_and(|output| output.status.success()) {
        return Err("Cassandra needs `java` (a JDK 17) on PATH".to_owned());
    }
    let parent = crate::cache().join("cassandra");
    let jars = parent.join(VERSION);
    if !jars.is_dir() {
        fetch(&parent, &jars)?;
    }
    Ok(jars)
}

fn fetch(parent: &Path, jars: &Path) -> Result<(), String> {
    let failed = |what: &str, error: &dyn std::fmt::Display| format!("{what} {}: {error}", parent.display());
    fs::create_dir_all(parent).map_err(|error| failed("cannot make", &error))?;
    // Beside its final place and moved there whole, so that what is there is complete, whoever else fetches.
    let part = tempfile::tempdir_in(parent).map_err(|error| failed("cannot write in", &error))?;
    let pom = part.path().join("pom.xml");
    fs::write(&pom, project()).map_err(|error| failed("cannot write in", &error))?;
    let fetched = part.path().join("jars");
    let output = Command::new("mvn")
        .args(["-q", "-B", "-f"])
        .arg(&pom)
        .arg("dependency:copy-dependencies")
        .arg(format!("-DoutputDirectory={}", fetched.display()))
        .output()
        .map_err(|error| format!("Cassandra {VERSION} comes from Maven, and `mvn` cannot be run: {error}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stdout);
        let lines: Vec<&str> = text.lines().rev().take(5).collect();
        return Err(format!("mvn cannot fetch Cassandra {VERSION}: {}", lines.join(" | ")));
    }
    match fs::rename(&fetched, jars) {
        Err(_) if jars.is_dir() => Ok(()), // another process was quicker
        moved => moved.map_err(|error| failed("cannot move the jars in", &error)),
    }
}

fn project() -> String {
    format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion>\
         <groupId>weir</groupId><artifactId>test-servers</artifactId><version>1</version><dependencies><dependency>\
         <groupId>org.apache.cassandra</groupId><artifactId>cassandra-all</artifactId><version>{VERSION}</version>\
         </dependency></dependencies></project>"
    )
}
