//! `weir dead-letter …`

use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::Subcommand;
use serde_json::{Value, json};
use weir_core::Result;
use weir_grpc::from_status;
use weir_proto::ingest::v1 as pb;

use crate::{
    context::Caller,
    convert::{id, json_text, json_time, short, time},
    output::{self, Show},
    page,
};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List refused payloads, newest first
    #[command(
        after_help = "Examples:\n  weir dead-letter list\n  weir dead-letter list -o csv > refused.csv"
    )]
    List,
    /// Show a refused payload: as text, or in base64 where it is not UTF-8
    #[command(
        after_help = "Examples:\n  weir dead-letter get 01a2065d4f817166b22f75012f7ca462 -o json\n  weir dead-letter get 01a2065d4f817166b22f75012f7ca462 --raw > payload.bin"
    )]
    Get {
        /// Its id
        id: String,
        /// Write the payload alone, byte for byte, whatever --output says
        #[arg(long)]
        raw: bool,
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
        Command::Get { id, raw } => {
            let name = caller.name("deadLetters", &id)?;
            let answer = stub
                .get_dead_letter(pb::GetDeadLetterRequest { name })
                .await
                .map_err(from_status)?
                .into_inner();
            let letter = answer.dead_letter.unwrap_or_default();
            if raw { output::raw(&letter.payload) } else { output::one(caller.format, &Whole(letter)) }
        }
    }
}

impl Show for pb::DeadLetter {
    const COLUMNS: &'static [&'static str] =
        &["id", "device", "topic", "reason", "field", "message", "bytes", "created"];
    fn cells(&self) -> Vec<String> {
        vec![
            id(&self.name),
            id(&self.device),
            self.topic.clone(),
            self.reason.clone(),
            self.field.clone(),
            self.message.clone(),
            self.payload_bytes.to_string(),
            time(self.create_time.as_ref()),
        ]
    }
    fn json(&self) -> Value {
        json!({
            "id": id(&self.name),
            "name": self.name,
            "kind": short(self.kind().as_str_name(), "DEAD_LETTER_KIND"),
            "device": id(&self.device),
            "topic": self.topic,
            "reason": self.reason,
            "message": self.message,
            "field": json_text(&self.field),
            "payload_bytes": self.payload_bytes,
            "create_time": json_time(self.create_time.as_ref()),
        })
    }
}

/// One with its payload, which a list does not carry. Bytes that are no text are never bent into text.
struct Whole(pb::DeadLetter);

impl Whole {
    /// The payload, and how it is written: text or base64.
    fn payload(&self) -> (String, &'static str) {
        match std::str::from_utf8(&self.0.payload) {
            Ok(text) => (text.to_owned(), "text"),
            Err(_) => (STANDARD.encode(&self.0.payload), "base64"),
        }
    }
}

impl Show for Whole {
    const COLUMNS: &'static [&'static str] = &[
        "id",
        "device",
        "topic",
        "reason",
        "field",
        "message",
        "bytes",
        "created",
        "payload",
        "payload_encoding",
    ];
    fn cells(&self) -> Vec<String> {
        let (payload, encoding) = self.payload();
        let mut cells = self.0.cells();
        cells.extend([payload, encoding.to_owned()]);
        cells
    }
    fn json(&self) -> Value {
        let (payload, encoding) = self.payload();
        let mut json = self.0.json();
        if let Some(object) = json.as_object_mut() {
            let key = if encoding == "text" { "payload" } else { "payload_base64" };
            object.insert(key.to_owned(), Value::String(payload));
        }
        json
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(payload: &[u8]) -> Whole {
        Whole(pb::DeadLetter { payload: payload.to_vec(), ..Default::default() })
    }

    #[test]
    fn a_payload_is_text_where_it_is_text_and_else_base64() {
        let text = letter(br#"{"temp": }"#);
        assert_eq!(text.json()["payload"], r#"{"temp": }"#);
        assert!(text.json().get("payload_base64").is_none());
        let binary = letter(&[0xff, 0x00, 0x41]);
        assert_eq!(binary.json()["payload_base64"], "/wBB");
        assert!(binary.json().get("payload").is_none());
    }

    #[test]
    fn a_csv_row_says_how_its_payload_is_written() {
        for (payload, shown) in [(&b"/wBB"[..], ["/wBB", "text"]), (&[0xff, 0x00, 0x41], ["/wBB", "base64"])]
        {
            let cells = letter(payload).cells();
            assert_eq!(cells.len(), Whole::COLUMNS.len());
            assert_eq!(cells[cells.len() - 2..], shown);
        }
    }
}
