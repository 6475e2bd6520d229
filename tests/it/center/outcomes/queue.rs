//! The queue of outcomes: made, moved, lost, and only looked for.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn without_an_approval_center_outcomes_are_kept_and_a_reload_moves_the_queue() {
    let vhost = Vhost::new().await;
    let center = Center::start().await;
    let endpoint =
        Endpoint::encrypted("purchase").credentials(&[("fake-token-number-1", Some("fake-key-number-1"))]);
    let mut app = App::with(Config::bare(vhost.url()).endpoint(endpoint)).await;
    let worker = Worker::on(&vhost);
    let callback = Callback::list("i", "t").token("fake-token-number-1");
    let command = app.post("purchase", callback.encrypted("fake-key-number-1")).await.command_id();
    worker.command(&command).await;
    vhost.until_declared(QUEUE).await;
    assert_eq!(app.get(&format!("/api/v1/commands/{command}")).await.json()["outcome"], Value::Null);
    let listed = Program::new(["ledger", "list"]).config(app.file()).run().await.ended_with(0).stdout;
    assert!(!listed.contains("OUTCOME"), "{listed}");

    let hang_up = |app: &App| {
        let pid = app.pid().to_string();
        let sent =
            std::process::Command::new("kill").args(["-HUP", &pid]).status().expect("kill can be started");
        assert!(sent.success());
    };
    let url = quoted(&center.url);
    app.reconfigure(|config| {
        config
            .set("approval_center", "base_url", &url)
            .set("approval_center", "app_id", &quoted("cli_emulator"))
            .set("approval_center", "app_secret", &quoted("emulator-secret"))
            .set("outcomes", "queue", &quoted("erp.outcomes"))
    });
    hang_up(&app);
    vhost.until_declared("erp.outcomes").await;
    app.until_metric("countersign_config_reloads_total{result=\"applied\"}", 1.0).await;

    app.reconfigure(|config| config.set("outcomes", "queue", &quoted(QUEUE)));
    hang_up(&app);
    vhost.until_declared(QUEUE).await;
    report(&vhost, outcome(&command, "applied").to_string().as_bytes()).await;
    app.until_metric("countersign_outcomes_total{outcome=\"applied\"}", 1.0).await;
    let told = app.get(&format!("/api/v1/commands/{command}")).await.json()["outcome"].clone();
    assert_eq!((&told["outcome"], &told["showing"]), (&json!("applied"), &json!("nothing")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_may_be_away_at_the_start_and_lose_the_queue_later() {
    let vhost = Vhost::new().await;
    let center = Center::start().await;
    let mut proxy = Proxy::shut_before(vhost.address());
    let away = config(&vhost, &center.url).set("amqp", "url", &quoted(&vhost.url_through(proxy.port())));
    let app = App::with(away).await;
    let code = center.definition(&app.callback_url("purchase")).await;
    let all = Loop { vhost, center, app, code };
    let card = all.card().await;
    let command = all.pressed(&["--message", &card]).await;
    proxy.open().await;
    all.vhost.until_declared(QUEUE).await;
    all.report(&outcome(&command, "refused")).await;
    all.until_cards_show(&["CUSTOM @i18n@status"]).await;
    all.vhost.delete_queue(QUEUE).await;
    all.vhost.until_declared(QUEUE).await;
    all.report(&outcome(&command, "applied")).await;
    all.until_cards_show(&["APPROVED"]).await;
    drop(proxy);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_only_looked_for_is_not_made() {
    let vhost = Vhost::new().await;
    let center = Center::start().await;
    let mut app = App::with(config(&vhost, &center.url).set("outcomes", "queue", "\"\"")).await;
    vhost.until_declared("countersign.commands").await;
    app.reconfigure(|config| {
        config.set("outcomes", "queue", &quoted(QUEUE)).set("amqp", "topology", "\"check\"")
    });
    app.kill();
    app.restart().await;
    eventually("a line about the queue", async || {
        let log = app.stderr();
        if log.contains("cannot find queue countersign.outcomes") { Ok(()) } else { Err(log) }
    })
    .await;
    assert_eq!(vhost.depth(QUEUE).await, None);
}
