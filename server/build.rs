//! Generates the server side of the collaboration service with a codec of its own: its responses are
//! frames that were encoded once and are shared by all sessions, which no message type can express.

use tonic_build::manual::{Builder, Method, Service};

fn main() {
    let codec = "crate::transport::codec::FrameCodec";
    let frames = "crate::transport::codec::Frames";
    let service = Service::builder()
        .name("CollaborationService")
        .package("cowrite.v1")
        .method(
            Method::builder()
                .name("edit")
                .route_name("Edit")
                .input_type("cowrite_proto::v1::EditRequest")
                .output_type(frames)
                .codec_path(codec)
                .client_streaming()
                .server_streaming()
                .build(),
        )
        .method(
            Method::builder()
                .name("subscribe")
                .route_name("Subscribe")
                .input_type("cowrite_proto::v1::SubscribeRequest")
                .output_type(frames)
                .codec_path(codec)
                .server_streaming()
                .build(),
        )
        .method(
            Method::builder()
                .name("publish")
                .route_name("Publish")
                .input_type("cowrite_proto::v1::PublishRequest")
                .output_type("cowrite_proto::v1::PublishResponse")
                .codec_path("tonic_prost::ProstCodec")
                .build(),
        )
        .build();
    Builder::new().build_client(false).compile(&[service]);
}
