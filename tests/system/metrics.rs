//! What Weir tells of itself: no stranger makes it grow, and every panel, rule and alert asks for what is there.

mod dashboards;
mod series;
mod written;

use std::{fs, path::PathBuf};

use weir_tests::Weir;

/// A file of the repository.
fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn read(path: &str) -> String {
    let path = repository(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What `/metrics` of a node says.
async fn scrape(weir: &Weir) -> String {
    let url = format!("http://{}/metrics", weir.addresses["admin"]);
    reqwest::get(url).await.unwrap().text().await.unwrap()
}
