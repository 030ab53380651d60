//! Promise: everything that is served besides sessions is what probes, scrapers, browsers and gRPC
//! tools expect.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails where something is not as it should be"
)]

use std::collections::BTreeSet;

use bytes::{BufMut as _, BytesMut};
use cowrite_proto::v1::{
    ListDocumentsRequest, PublishRequest, SubscribeRequest, SubscribeResponse,
    server_frame::Frame as Down,
};
use cowrite_tests::{
    Door, GrpcWebPart, GrpcWebStream, Participant, TestServer, http_get, http_request, join,
    text_update, up,
};
use prost::Message as _;
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

const SERVICE: &str = "/cowrite.v1.CollaborationService";

#[tokio::test]
async fn a_service_that_does_not_exist_is_unimplemented() {
    let server = TestServer::start().await;
    let mut client = tonic::client::Grpc::new(server.channel());
    client.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/cowrite.v9.Nothing/Call");
    let codec = tonic_prost::ProstCodec::<ListDocumentsRequest, ListDocumentsRequest>::default();
    let request = tonic::Request::new(ListDocumentsRequest::default());
    let status = client.unary(request, path, codec).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    // Over gRPC-Web too, where a browser needs a gRPC status in an answer that is 200.
    let kind = [("content-type", "application/grpc-web+proto")];
    let path = "/cowrite.v9.Nothing/Call";
    let answer = http_request(server.address(), "POST", path, &kind, &[0; 5]).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers.get("grpc-status").map(String::as_str), Some("12"));
}

#[tokio::test]
async fn health_says_that_the_server_and_its_services_serve() {
    let server = TestServer::start().await;
    let mut client = HealthClient::new(server.channel());
    for service in ["", "cowrite.v1.CollaborationService", "cowrite.v1.DocumentService"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let health = client.check(request).await.unwrap().into_inner();
        assert_eq!(health.status(), ServingStatus::Serving, "{service}");
    }
    let request = HealthCheckRequest { service: "nothing".to_owned() };
    assert_eq!(client.check(request).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn reflection_lists_the_services_and_describes_them() {
    let server = TestServer::start().await;
    let mut client = ServerReflectionClient::new(server.channel());
    let ask = |message_request| ServerReflectionRequest {
        host: String::new(),
        message_request: Some(message_request),
    };
    let requests = [
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol("cowrite.v1.CollaborationService".to_owned())),
    ];
    let stream = client.server_reflection_info(tokio_stream::iter(requests)).await.unwrap();
    let mut stream = stream.into_inner();
    let mut next = async || stream.message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(list) = next().await else { panic!("no list") };
    let services: BTreeSet<_> = list.service.into_iter().map(|service| service.name).collect();
    for service in
        ["cowrite.v1.CollaborationService", "cowrite.v1.DocumentService", "grpc.health.v1.Health"]
    {
        assert!(services.contains(service), "{service} is not in {services:?}");
    }
    let MessageResponse::FileDescriptorResponse(files) = next().await else { panic!("no file") };
    assert!(!files.file_descriptor_proto.is_empty());
}

#[tokio::test]
async fn probes_are_answered_on_both_ports() {
    let server = TestServer::start().await;
    for address in [server.address(), server.admin()] {
        for path in ["/livez", "/readyz"] {
            let answer = http_get(address, path).await;
            assert_eq!((answer.status, &answer.text()[..]), (200, "ok\n"), "{path}");
        }
    }
}

#[tokio::test]
async fn a_log_that_failed_makes_the_server_not_ready() {
    let log = cowrite_tests::FaultyLog::new();
    let server = TestServer::with_log(log.clone(), |_| {}).await;
    log.set_state(cowrite_server::log::LogState::Failed);
    let answer = http_get(server.admin(), "/readyz").await;
    assert_eq!((answer.status, &answer.text()[..]), (503, "the log has failed\n"));
    assert_eq!(http_get(server.admin(), "/livez").await.status, 200);
    // A full disk still serves readers.
    log.set_state(cowrite_server::log::LogState::Full);
    assert_eq!(http_get(server.admin(), "/readyz").await.status, 200);
}

#[tokio::test]
async fn metrics_are_valid_text_and_only_for_operators() {
    let server = TestServer::start().await;
    let mut writer = Participant::join(&server, Door::Edit, "notes").await;
    writer.type_text("x").await;
    writer.wait_for_acks().await;
    let answer = http_get(server.admin(), "/metrics").await;
    assert_eq!(answer.status, 200);
    assert!(answer.headers["content-type"].starts_with("application/openmetrics-text"));
    let text = answer.text();
    assert!(text.ends_with("# EOF\n"), "OpenMetrics says so");
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.split(' ');
            let kind = words.next().unwrap();
            assert!(["HELP", "TYPE", "UNIT", "EOF"].contains(&kind), "{line}");
            assert!(words.next().is_none_or(|name| name.starts_with("cowrite_")), "{line}");
        } else {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(name.starts_with("cowrite_"), "{line}");
            value.parse::<f64>().unwrap();
        }
    }
    for line in ["cowrite_sessions 1", "cowrite_rooms 1", "cowrite_room_updates_total 1"] {
        assert!(text.lines().any(|l| l == line), "{line} is not in {text}");
    }
    assert_eq!(http_get(server.address(), "/metrics").await.status, 404);
}

#[tokio::test]
async fn a_browser_that_looks_gets_a_page_and_404_for_what_is_not_there() {
    let server = TestServer::start().await;
    let page = http_get(server.address(), "/").await;
    assert_eq!(page.status, 200);
    assert!(page.headers["content-type"].starts_with("text/html"));
    assert!(page.text().contains("Cowrite"));
    assert_eq!(http_get(server.address(), "/nothing").await.status, 404);
}

#[tokio::test]
async fn a_browser_can_edit_over_http_1() {
    let server = TestServer::start().await;
    let mut peer = Participant::join(&server, Door::Edit, "notes").await;
    let request = SubscribeRequest { join: Some(join("notes")) };
    let path = format!("{SERVICE}/Subscribe");
    let mut stream = GrpcWebStream::open(server.address(), &path, &request.encode_to_vec()).await;
    assert_eq!(stream.status, 200);
    assert_eq!(stream.headers["content-type"], "application/grpc-web+proto");
    let mut frames = Vec::new();
    let mut next = async || {
        while frames.is_empty() {
            match stream.next().await.expect("the stream goes on") {
                GrpcWebPart::Message(message) => {
                    let message = SubscribeResponse::decode(message).unwrap();
                    frames = message.frames.into_iter().map(|f| f.frame.unwrap()).collect();
                }
                GrpcWebPart::Trailers(trailers) => return Err(trailers),
            }
        }
        Ok(frames.remove(0))
    };
    let Ok(Down::Joined(joined)) = next().await else { panic!("the first frame is not Joined") };
    // What the browser writes is acknowledged and seen.
    let publish = async |frames| {
        let (session_id, session_secret) =
            (joined.session_id.clone(), joined.session_secret.clone());
        let request = PublishRequest { session_id, session_secret, frames };
        let path = format!("{SERVICE}/Publish");
        let mut call = GrpcWebStream::open(server.address(), &path, &request.encode_to_vec()).await;
        assert!(matches!(call.next().await, Some(GrpcWebPart::Message(_))));
        let Some(GrpcWebPart::Trailers(trailers)) = call.next().await else { panic!("no end") };
        assert!(trailers.contains("grpc-status:0"), "{trailers}");
    };
    publish(vec![up::update(1, text_update("from a browser"))]).await;
    while !matches!(next().await, Ok(Down::Ack(ack)) if ack.update_id == 1) {}
    peer.wait_for_text("from a browser").await;
    // What others write arrives while the answer is still open.
    peer.type_text("!").await;
    while !matches!(next().await, Ok(Down::Update(_))) {}
    publish(vec![up::leave()]).await;
    let trailers = loop {
        if let Err(trailers) = next().await {
            break trailers;
        }
    };
    assert!(trailers.contains("grpc-status:0"), "{trailers}");
}

#[tokio::test]
async fn a_refusal_reaches_a_browser_with_its_details() {
    let server = TestServer::start().await;
    let request = SubscribeRequest { join: Some(join("not an id")) };
    let path = format!("{SERVICE}/Subscribe");
    let mut stream = GrpcWebStream::open(server.address(), &path, &request.encode_to_vec()).await;
    assert_eq!(stream.status, 200);
    let mut told = stream.headers.iter().map(|(k, v)| format!("{k}:{v}\r\n")).collect::<String>();
    while let Some(part) = stream.next().await {
        if let GrpcWebPart::Trailers(trailers) = part {
            told.push_str(&trailers);
        }
    }
    assert!(told.contains("grpc-status:3"), "{told}");
    assert!(told.contains("grpc-status-details-bin:"), "{told}");
}

#[tokio::test]
async fn bytes_that_are_no_message_are_refused_to_a_browser_with_a_status() {
    let server = TestServer::start().await;
    let path = format!("{SERVICE}/Subscribe");
    let mut stream = GrpcWebStream::open(server.address(), &path, &[0xff; 20]).await;
    assert_eq!(stream.status, 200);
    let mut told = stream.headers.iter().map(|(k, v)| format!("{k}:{v}\r\n")).collect::<String>();
    while let Some(part) = stream.next().await {
        if let GrpcWebPart::Trailers(trailers) = part {
            told.push_str(&trailers);
        }
    }
    assert!(told.contains("grpc-status:3"), "{told}");
    assert!(told.contains("grpc-status-details-bin:"), "{told}");
}

#[tokio::test]
async fn a_message_with_an_absurd_length_is_refused_without_waiting_for_it() {
    let server = TestServer::start().await;
    let mut body = BytesMut::new();
    body.put_u8(0);
    body.put_u32(u32::MAX);
    body.put_slice(b"short");
    let kind = [("content-type", "application/grpc-web+proto"), ("x-grpc-web", "1")];
    let path = format!("{SERVICE}/Subscribe");
    let answer = http_request(server.address(), "POST", &path, &kind, &body).await;
    let told = format!("{:?} {}", answer.headers, String::from_utf8_lossy(&answer.body));
    assert!(told.contains("grpc-status") && told.contains("11"), "{told}");
}

#[tokio::test]
async fn pages_of_an_origin_that_is_allowed_may_call_and_others_may_not() {
    let origin = "https://app.example.com".to_owned();
    let server = TestServer::with_config(|config| {
        config.transport.allowed_origins = vec![origin.clone()];
    })
    .await;
    let preflight = async |origin: &str| {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "content-type,x-grpc-web"),
        ];
        let path = format!("{SERVICE}/Subscribe");
        http_request(server.address(), "OPTIONS", &path, &headers, b"").await
    };
    let allowed = preflight(&origin).await;
    assert_eq!(allowed.status, 200);
    assert_eq!(allowed.headers["access-control-allow-origin"], origin);
    assert!(allowed.headers["access-control-allow-headers"].contains("x-grpc-web"));
    let other = preflight("https://evil.example.com").await;
    assert!(!other.headers.contains_key("access-control-allow-origin"), "{other:?}");
    // The answer itself may be read by the page too, with the status in it.
    let kind = [("content-type", "application/grpc-web+proto"), ("origin", &origin[..])];
    let path = "/cowrite.v1.DocumentService/ListDocuments";
    let answer = http_request(server.address(), "POST", path, &kind, &[0; 5]).await;
    assert_eq!(answer.headers["access-control-allow-origin"], origin);
    assert!(answer.headers["access-control-expose-headers"].contains("grpc-status"));
    // Nobody is allowed where nothing is said.
    let server = TestServer::start().await;
    let headers = [("origin", &origin[..]), ("access-control-request-method", "POST")];
    let path = format!("{SERVICE}/Subscribe");
    let answer = http_request(server.address(), "OPTIONS", &path, &headers, b"").await;
    assert!(!answer.headers.contains_key("access-control-allow-origin"), "{answer:?}");
}
