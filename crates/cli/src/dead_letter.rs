//! `weir dead-letter …`

use clap::Subcommand;
use serde_json::{Value, json};
use weir_core::Result;
use weir_grpc::from_status;
use weir_proto::ingest::v1 as pb;

use crate::{
    context::Caller,
    convert::{id, json_text, json_time, time},
    output::{self, Show},
    page,
};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List them, newest first
    List,
    /// Show one with its payload
    Get {
        /// Its id
        id: String,
    },
}

pub(crate) async fn run(command: Command, caller: &Caller) -> Result<()> {
    let mut stub = caller.connection.dead_letters();
    match command {
        Command::List => {
            let mut evicted = 0;
            let found = page::all(async |page_token| {
                let request = pb::ListDeadLettersRequest {
                    parent: caller.parent()?,
                    page_size: page::SIZE,
                    page_token,
                };
                let page = stub.list_dead_letters(request).await.map_err(from_status)?.into_inner();
                evicted = page.evicted;
                Ok((page.dead_letters, page.next_page_token))
            })
            .await?;
            output::list(caller.format, &found)?;
            if evicted > 0 {
                output::note(&format!("{evicted} older ones have made room"));
            }
            Ok(())
        }
        Command::Get { id } => {
            let name = caller.name("deadLetters", &id)?;
            let answer = stub
                .get_dead_letter(pb::GetDeadLetterRequest { name })
                .await
                .map_err(from_status)?
                .into_inner();
            output::one(caller.format, &answer.dead_letter.unwrap_or_default())
        }
    }
}

impl Show for pb::DeadLetter {
    const COLUMNS: &'static [&'static str] =
        &["id", "device", "topic", "reason", "message", "bytes", "created"];
    fn cells(&self) -> Vec<String> {
        vec![
            id(&self.name),
            id(&self.device),
            self.topic.clone(),
            self.reason.clone(),
            self.message.clone(),
            self.payload_bytes.to_string(),
            time(self.create_time.as_ref()),
        ]
    }
    fn json(&self) -> Value {
        json!({
            "id": id(&self.name),
            "name": self.name,
            "device": id(&self.device),
            "topic": self.topic,
            "reason": self.reason,
            "message": self.message,
            "field": json_text(&self.field),
            "payload_bytes": self.payload_bytes,
            "payload": json_text(&String::from_utf8_lossy(&self.payload)),
            "create_time": json_time(self.create_time.as_ref()),
        })
    }
}
