// What the official clients make of a gateway that lets them wait, with comments, and of their own
// time limits; their own retries are off.

import assert from "node:assert/strict";
import { afterEach, describe, it } from "node:test";

import { stopAll } from "./processes.mjs";
import { APIS, ask, requestsAt, startScene, words } from "./scenes.mjs";

const always = (type, ...more) =>
  ["--failure-injection-rate", "100", "--failure-types", type, ...more];

const HEARTBEAT = 'gate = { heartbeat = "100ms" },';

async function rejection(promise) {
  let error;
  await assert.rejects(promise, (raised) => {
    error = raised;
    return true;
  });
  return error;
}

for (const api of APIS) {
  describe(`the ${api.name} client, with heartbeats,`, () => {
    afterEach(stopAll);

    it("gets the answer of a slow target", async () => {
      const scene = await startScene(api, {
        route: HEARTBEAT, spare: ["--time-to-first-token", "600ms"], primary: always("hang"),
      });
      const answer = await ask(api, scene.client);
      assert.equal(answer.text, words());
      assert.equal(answer.finish, api.finished);
      assert.equal(answer.headers.get("content-type"), "text/event-stream; charset=utf-8");
      assert.equal(answer.headers.get("x-perilune-target"), null);
    });

    it("raises the gateway's error, and never ends well, when all fail", async () => {
      const scene = await startScene(api, {
        route: `${HEARTBEAT} retry = { attempts = 2 },`, primary: always("hang"),
        spare: always("reset_before_headers"),
      });
      const error = await rejection(ask(api, scene.client));
      assert.ok(error instanceof api.APIError, `${error.stack}`);
      assert.equal(error.status, undefined);
      assert.match(error.message, /Target `spare\/small` closed the connection/);
      assert.equal(error.seen.text, "");
      assert.equal(error.type, api.name === "anthropic" ? "api_error" : "upstream_error");
    });

    it("raises a target's error in its own words", async () => {
      const scene = await startScene(api, {
        route: HEARTBEAT, primary: always("hang"), spare: always("content_filter"),
      });
      const error = await rejection(ask(api, scene.client));
      assert.ok(error instanceof api.APIError, `${error.stack}`);
      assert.match(error.message, /Output blocked by content filtering policy\./);
    });

    it("raises an error when the time is over that it has said itself", async () => {
      const scene = await startScene(api, {
        route: `${HEARTBEAT} deadline_header = "x-stainless-timeout",`, primary: always("hang"),
        spare: always("hang"),
      });
      const client = scene.client.withOptions({ timeout: 1000 });
      const error = await rejection(ask(api, client));
      assert.match(error.message, /deadline|timed out/i);
      assert.ok(await requestsAt(scene.primary) === 1);
    });

    it("is not told anything when it wants no stream", async () => {
      const scene = await startScene(api, {
        route: HEARTBEAT, primary: always("hang"), spare: always("content_filter"),
      });
      const error = await rejection(ask(api, scene.client, false));
      assert.ok(error instanceof api.BadRequestError, `${error.stack}`);
      assert.equal(error.status, 400);
    });
  });
}
