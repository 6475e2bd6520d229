//! A limit: what actix-web alone can do. Reads the body and answers.

use actix_web::{App, HttpResponse, HttpServer, web};
use bench_peers::SUCCESS;

async fn callback(body: web::Bytes) -> HttpResponse {
    if body.is_empty() {
        return HttpResponse::BadRequest().finish();
    }
    HttpResponse::Ok().content_type("application/json").body(SUCCESS)
}

#[actix_web::main]
async fn main() -> anyhow::Result<()> {
    HttpServer::new(|| App::new().route("/callbacks/{endpoint}", web::post().to(callback)))
        .workers(2)
        .bind(std::env::var("LISTEN")?)?
        .run()
        .await?;
    Ok(())
}
