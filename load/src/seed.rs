//! Documents with content, for those that join them.

use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use yrs::{Doc, Text as _, Transact as _};

use crate::{door::Entrance, error::Error, pipeline::Pipeline, report::Progress, sessions};
use cowrite_client::JoinOptions;

/// Types `edits` keystrokes into a new document: runs of typing at places that change now and then,
/// with a deletion for about every tenth. Returns the session that typed: a server that keeps no
/// document without sessions keeps it while that is there.
pub(crate) async fn seed(
    entrance: &Entrance,
    document: &str,
    edits: u32,
    seed: u64,
    progress: &Progress,
) -> Result<Pipeline, Error> {
    let session = sessions::open(entrance, JoinOptions::new(document)).await?;
    let mut pipeline = Pipeline::new(document, session, |_| {});
    let mut random = SmallRng::seed_from_u64(seed);
    let doc = Doc::new();
    let text = doc.get_or_insert_text("content");
    let (mut cursor, mut len) = (0_u32, 0_u32);
    progress.begin("typing a document", edits.into());
    for edit in 0..edits {
        let update = {
            let mut txn = doc.transact_mut();
            if random.random_ratio(1, 40) {
                cursor = random.random_range(0..=len);
            }
            if cursor > 0 && random.random_ratio(1, 10) {
                cursor -= 1;
                len -= 1;
                text.remove_range(&mut txn, cursor, 1);
            } else {
                let letter = char::from(b'a' + (edit % 26) as u8);
                text.insert(&mut txn, cursor, letter.encode_utf8(&mut [0; 4]));
                cursor += 1;
                len += 1;
            }
            txn.encode_update_v1()
        };
        pipeline.send(update.into()).await?;
        progress.step(1);
    }
    pipeline.flush().await?;
    Ok(pipeline)
}
