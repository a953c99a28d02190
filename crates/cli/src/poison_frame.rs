//! `weir poison-frame …`

use clap::Subcommand;
use serde_json::{Value, json};
use weir_core::Result;
use weir_grpc::from_status;
use weir_proto::storage::v1 as pb;

use crate::{
    context::Caller,
    convert::{id, json_time, time},
    output::{self, Show},
    page,
};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List them, by partition and place in the log
    #[command(after_help = "Examples:\n  weir poison-frame list\n  weir poison-frame list -o json")]
    List,
    /// Show what is known of one, or write its bytes
    #[command(
        after_help = "Examples:\n  weir poison-frame get 3-1-4711\n  weir poison-frame get 3-1-4711 --raw > frame.bin"
    )]
    Get {
        /// Its id: partition, generation, sequence
        id: String,
        /// Write its bytes alone, whatever --output says
        #[arg(long)]
        raw: bool,
    },
    /// Publish one again, once this release can decode it; its readings then count as accepted now
    #[command(after_help = "Example:\n  weir poison-frame replay 3-1-4711")]
    Replay {
        /// Its id: partition, generation, sequence
        id: String,
    },
    /// Forget one for good
    #[command(after_help = "Example:\n  weir poison-frame delete 3-1-4711")]
    Delete {
        /// Its id: partition, generation, sequence
        id: String,
    },
}

pub(crate) async fn run(command: Command, caller: &Caller) -> Result<()> {
    let mut stub = caller.connection.poison_frames();
    let name = |id: &str| format!("poisonFrames/{}", id.trim_start_matches("poisonFrames/"));
    match command {
        Command::List => {
            let found = page::all(async |page_token| {
                let request = pb::ListPoisonFramesRequest { page_size: page::SIZE, page_token };
                let page = stub.list_poison_frames(request).await.map_err(from_status)?.into_inner();
                Ok((page.poison_frames, page.next_page_token))
            })
            .await?;
            output::list(caller.format, &found)
        }
        Command::Get { id, raw } => {
            let request = pb::GetPoisonFrameRequest { name: name(&id) };
            let answer = stub.get_poison_frame(request).await.map_err(from_status)?.into_inner();
            let found = answer.poison_frame.unwrap_or_default();
            if raw { output::raw(&found.frame) } else { output::one(caller.format, &found) }
        }
        Command::Replay { id } => {
            let request = pb::ReplayPoisonFrameRequest { name: name(&id) };
            let answer = stub.replay_poison_frame(request).await.map_err(from_status)?.into_inner();
            output::note(&format!("published again; it stands at sequence {} now", answer.sequence));
            Ok(())
        }
        Command::Delete { id } => {
            let request = pb::DeletePoisonFrameRequest { name: name(&id) };
            stub.delete_poison_frame(request).await.map_err(from_status)?;
            output::note(&format!("poison frame {id} is deleted"));
            Ok(())
        }
    }
}

impl Show for pb::PoisonFrame {
    const COLUMNS: &'static [&'static str] =
        &["id", "partition", "generation", "sequence", "bytes", "reason", "message", "stored"];
    fn cells(&self) -> Vec<String> {
        vec![
            id(&self.name),
            self.partition.to_string(),
            self.generation.to_string(),
            self.sequence.to_string(),
            self.frame_bytes.to_string(),
            self.reason.clone(),
            self.message.clone(),
            time(self.store_time.as_ref()),
        ]
    }
    fn json(&self) -> Value {
        json!({
            "id": id(&self.name),
            "name": self.name,
            "partition": self.partition,
            "generation": self.generation,
            "sequence": self.sequence,
            "frame_id": self.frame_id,
            "frame_bytes": self.frame_bytes,
            "reason": self.reason,
            "message": self.message,
            "store_time": json_time(self.store_time.as_ref()),
        })
    }
}
