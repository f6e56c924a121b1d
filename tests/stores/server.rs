//! What PostgreSQL and MySQL have in common: they are servers, and may go away.

use crate::suite::Opening;
use doorward::store::Store;
use doorward::store::own::Own;
use doorward::store::sql::{ServerOptions, ServerUrl};

/// Opens the database of this URL as another process would.
pub(crate) fn open(url: String) -> Opening {
    Box::pin(async move { Box::new(connect(&url).await) as Box<dyn Store> })
}

pub(crate) async fn connect(url: &str) -> Own {
    let url = ServerUrl::parse(url).unwrap();
    Own::connect(&url, &ServerOptions::default()).await.unwrap()
}
