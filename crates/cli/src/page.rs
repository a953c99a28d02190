//! Lists, page by page.

use weir_core::Result;

/// The most that one page gives.
pub(crate) const SIZE: i32 = 1_000;

/// Everything that a list gives: `page` takes a page token and returns the items and the next token.
pub(crate) async fn all<T>(mut page: impl AsyncFnMut(String) -> Result<(Vec<T>, String)>) -> Result<Vec<T>> {
    let (mut found, mut token) = page(String::new()).await?;
    while !token.is_empty() {
        let (more, next) = page(token).await?;
        found.extend(more);
        token = next;
    }
    Ok(found)
}
