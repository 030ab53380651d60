//! Two writers in one document: each types a line, and both see both.
//!
//! ```text
//! cargo run -p cowrite-client --example two_writers -- http://127.0.0.1:8080 notes
//! ```

use std::{env, error::Error};

use cowrite_client::{
    Client, Document, DocumentOptions,
    yrs::{Text as _, WriteTxn as _},
};

const ROOT: &str = "content";

#[tokio::main]
#[expect(clippy::print_stdout, reason = "an example prints what it does")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let url = args.next().unwrap_or_else(|| "http://127.0.0.1:8080".to_owned());
    let id = args.next().unwrap_or_else(|| "notes".to_owned());

    let client = Client::connect(url).await?;
    let alice = client.document(id.as_str(), DocumentOptions::default());
    let bob = client.document(id.as_str(), DocumentOptions::default());
    alice.wait_until_synced().await?;
    bob.wait_until_synced().await?;

    alice.set_awareness(Some(&serde_json::json!({"user": {"name": "Alice"}})))?;
    let mut seen_by_bob = bob.awareness();
    seen_by_bob.wait_for(|others| !others.is_empty()).await?;
    println!("Bob sees {:?}", *seen_by_bob.borrow());

    type_line(&alice, "Alice was here");
    type_line(&bob, "so was Bob");
    alice.wait_until_saved().await?;
    bob.wait_until_saved().await?;
    println!("both lines are on the server's disk");

    // A change of the one arrives at the other a moment later.
    let mut changes = alice.changes();
    while alice.text(ROOT) != bob.text(ROOT) {
        tokio::select! {
            changed = changes.changed() => changed?,
            () = tokio::time::sleep(std::time::Duration::from_millis(10)) => {}
        }
    }
    println!("both have:\n{}", alice.text(ROOT));

    alice.leave().await?;
    bob.leave().await?;
    Ok(())
}

fn type_line(document: &Document, line: &str) {
    document.edit(|txn| txn.get_or_insert_text(ROOT).push(txn, &format!("{line}\n")));
}
