//! Writes inputs to begin with into `seeds/TARGET/`: what editors, providers and clients send. And,
//! called with files of a corpus, says which of them may be kept: those in which the wall takes every
//! update, so that no bytes are kept that a CRDT library without a wall does not bear.
#![allow(clippy::unwrap_used, reason = "a tool for developers, which may end with a panic")]

use std::{env, fs, path::Path};

use bytes::Bytes;
use cowrite_fuzz::{QUOTAS, parts};
use cowrite_proto::v1::{
    ClientAwareness, ClientFrame, ClientUpdate, EditRequest, Join, Leave, Pong, RefreshToken,
    SubscribeRequest, client_frame::Frame,
};
use cowrite_server::crdt::{Author, Batch, Document, Terms, validate};
use prost::Message as _;
use yrs::{
    Any, Array as _, Doc, Map as _, MapPrelim, ReadTxn as _, Text as _, Transact as _,
    XmlElementPrelim, XmlFragment as _, XmlTextPrelim, types::Attrs, updates::encoder::Encode as _,
};

/// Edits as editors make them, one update each.
fn updates(client: u64) -> Vec<Vec<u8>> {
    let doc = Doc::with_client_id(client);
    let (text, map) = (doc.get_or_insert_text("t"), doc.get_or_insert_map("m"));
    let (array, comments) = (doc.get_or_insert_array("a"), doc.get_or_insert_array("c"));
    let xml = doc.get_or_insert_xml_fragment("x");
    let edits: [&dyn Fn(&mut yrs::TransactionMut<'_>); 13] = [
        &|txn| text.insert(txn, 0, "hello"),
        &|txn| text.insert(txn, 2, "é🙂"),
        &|txn| text.remove_range(txn, 0, 1),
        &|txn| text.format(txn, 0, 1, Attrs::from([("b".into(), Any::from(true))])),
        &|txn| drop(text.insert_embed(txn, 1, Any::from("e"))),
        &|txn| drop(map.insert(txn, "k", Any::from(vec![Any::Null, Any::from(1.5)]))),
        &|txn| drop(map.insert(txn, "k", MapPrelim::from([("i", 7)]))),
        &|txn| drop(array.insert(txn, 0, Any::Buffer(vec![1, 2, 3].into()))),
        &|txn| drop(array.push_back(txn, Any::from(true))),
        &|txn| array.remove(txn, 0),
        &|txn| drop(comments.push_back(txn, MapPrelim::from([("by", "me")]))),
        &|txn| {
            let paragraph = xml.push_back(txn, XmlElementPrelim::empty("p"));
            paragraph.push_back(txn, XmlTextPrelim::new("in"));
        },
        &|txn| xml.remove_range(txn, 0, 1),
    ];
    let edit = |edit: &&dyn Fn(&mut yrs::TransactionMut<'_>)| {
        let mut txn = doc.transact_mut();
        edit(&mut txn);
        txn.encode_update_v1()
    };
    edits.iter().map(edit).collect()
}

fn packed(updates: &[Vec<u8>], flags: u8) -> Vec<u8> {
    let mut out = Vec::new();
    for update in updates {
        let length = u16::try_from(update.len() + 1).unwrap();
        out.extend(length.to_be_bytes());
        out.push(flags);
        out.extend(update);
    }
    out
}

fn lib0(bytes: &[u8]) -> Vec<u8> {
    [&[u8::try_from(bytes.len()).unwrap()][..], bytes].concat()
}

fn frames(frames: Vec<Frame>) -> Vec<u8> {
    let frames = frames.into_iter().map(|frame| ClientFrame { frame: Some(frame) }).collect();
    EditRequest { frames }.encode_to_vec()
}

fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let (alice, bob) = (updates(1), updates(300));
    let all: Vec<_> = alice.iter().chain(&bob).cloned().collect();
    let mut seeds = Vec::new();
    for target in ["update", "checkpoint"] {
        for flags in [0, 1, 2, 17, 20, 24] {
            seeds.push((target, packed(&alice, flags)));
            seeds.push((target, packed(&all, flags)));
        }
    }
    seeds.extend([("state_vector", vec![0]), ("state_vector", vec![2, 9, 3, 1, 2])]);
    let doc = Doc::with_client_id(9);
    doc.get_or_insert_text("r").push(&mut doc.transact_mut(), "abc");
    seeds.push(("state_vector", doc.transact().state_vector().encode_v1()));
    let state = br##"{"user":{"name":"Ada \"A\"","color":"#30bced"},"cursor":[{"a":null}]}"##;
    seeds.extend([("awareness", state.to_vec()), ("awareness", b"null".to_vec())]);
    let update = &alice[0];
    let awareness = [&[1, 1, 0][..], &lib0(b"{}")].concat();
    let messages = [
        [&[0, 0][..], &lib0(&[0])].concat(),
        [&[0, 1][..], &lib0(update)].concat(),
        [&[0, 2][..], &lib0(update)].concat(),
        [&[1][..], &lib0(&awareness)].concat(),
        vec![3],
    ];
    seeds.push(("y_websocket", messages.concat()));
    for message in messages {
        seeds.push(("hocuspocus", [&lib0(b"doc")[..], &message].concat()));
        seeds.push(("y_websocket", message));
    }
    let token = [&lib0(b"doc\0session")[..], &[2, 0], &lib0(b"token"), &lib0(b"4.8.0")].concat();
    seeds.extend([("hocuspocus", token), ("hocuspocus", vec![9])]);
    let join = Join {
        protocol_version: 1,
        document: "notes/7".to_owned(),
        token: "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln".to_owned(),
        state_vector: Bytes::from_static(&[1, 1, 2]),
        epoch: Bytes::from_static(&[7; 16]),
        awareness_client_id: 5,
        ..Join::default()
    };
    seeds.push(("join", SubscribeRequest { join: Some(join.clone()) }.encode_to_vec()));
    let update = ClientUpdate { update_id: 1, update: update.clone().into() };
    let state = Bytes::from_static(b"{}");
    seeds.push((
        "grpc",
        frames(vec![
            Frame::Join(join),
            Frame::Update(update),
            Frame::Awareness(ClientAwareness { state }),
            Frame::Pong(Pong { nonce: 1 }),
            Frame::RefreshToken(RefreshToken { token: "t".to_owned() }),
            Frame::Leave(Leave {}),
        ]),
    ));
    let example = include_str!("../../../../deploy/cowrite.example.toml");
    seeds.push(("config", example.as_bytes().to_vec()));
    seeds.push(("config", b"ROOM__ROOMS_MAX=7\nAUTH__MODE=jwt\nLOG__DIRECTORY=x".to_vec()));
    seeds
}

/// Whether an input may be published: nothing in it that the wall refuses, and that yrs alone might not bear.
fn may_be_kept(target: &str, input: &[u8]) -> bool {
    match target {
        "update" | "checkpoint" => {
            let mut document = Document::new();
            parts(input).filter_map(|part| part.split_first()).all(|(_, bytes)| {
                let update = Bytes::copy_from_slice(bytes);
                let Ok(scan) = validate::update(&update) else { return false };
                let mut batch = Batch::default();
                let (author, quotas) = (Author::NOBODY, &QUOTAS);
                let terms = Terms { author, only_root: None, quotas, is_difference: false };
                let taken = document.check(&mut batch, &update, &scan, terms);
                taken.is_ok_and(|taken| taken.is_ok()) && document.apply(&mut batch).is_ok()
            })
        }
        "state_vector" => validate::state_vector(input).is_ok(),
        "config" => input.len() < 400,
        // What is in their frames is not looked into.
        _ => false,
    }
}

fn main() {
    let arguments: Vec<_> = env::args().skip(1).collect();
    if let [target, files @ ..] = &arguments[..] {
        for file in files.iter().filter(|file| may_be_kept(target, &fs::read(file).unwrap())) {
            println!("{file}");
        }
        return;
    }
    for (number, (target, bytes)) in seeds().into_iter().enumerate() {
        let directory = Path::new("seeds").join(target);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(format!("{number:03}")), bytes).unwrap();
    }
}
