//! The floor: what is left of the work without a ledger. Opens the callback, publishes it by bare lapin, and answers
//! after the broker's confirm.

use actix_web::{App, HttpResponse, HttpServer, web};
use bench_peers::{Dress, REFUSED, ROUTING_KEY, SUCCESS, Settings, channel};
use lapin::{Channel, Confirmation, options::BasicPublishOptions};

struct Shared {
    settings: Settings,
    dress: Dress,
    channel: Channel,
}

async fn callback(shared: web::Data<Shared>, body: web::Bytes) -> HttpResponse {
    let Some((plain, _)) = shared.settings.open(&body) else {
        return HttpResponse::Forbidden().content_type("application/json").body(REFUSED);
    };
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let published = shared
        .channel
        .basic_publish(
            shared.settings.exchange.as_str().into(),
            ROUTING_KEY.into(),
            options,
            &shared.dress.body(plain),
            shared.dress.properties(),
        )
        .await;
    let confirmed = match published {
        Ok(confirm) => confirm.await,
        Err(error) => Err(error),
    };
    match confirmed {
        Ok(Confirmation::Ack(None)) => HttpResponse::Ok().content_type("application/json").body(SUCCESS),
        _ => HttpResponse::ServiceUnavailable().finish(),
    }
}

#[actix_web::main]
async fn main() -> anyhow::Result<()> {
    let settings = Settings::from_environment()?;
    let listen = settings.listen.clone();
    let (_connection, channel) = channel(&settings, true).await?;
    let shared = web::Data::new(Shared { settings, dress: Dress::from_environment()?, channel });
    HttpServer::new(move || {
        App::new().app_data(shared.clone()).route("/callbacks/{endpoint}", web::post().to(callback))
    })
    .workers(2)
    .bind(listen)?
    .run()
    .await?;
    Ok(())
}
