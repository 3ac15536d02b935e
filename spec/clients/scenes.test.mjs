// Things that go wrong with answers, and what the official clients make of what the gateway does
// about them; their own retries are off. policies/spec/scenes_spec.lua plays the same in the times
// that it takes, 20 s to a late first token and an outage of 60 s; here times are a thirtieth.

import assert from "node:assert/strict";
import { afterEach, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { kill, stopAll } from "./processes.mjs";
import { APIS, WORD_COUNT, ask, requestsAt, startPrimary, startScene, words } from "./scenes.mjs";

const always = (type, ...more) =>
  ["--failure-injection-rate", "100", "--failure-types", type, ...more];
const once = (type, ...more) => ["--fail-first", "1", "--failure-types", type, ...more];

// Whole, each word once and in order, under one id and one name.
function assertWhole(api, answer, model) {
  assert.equal(answer.text, words());
  assert.equal(answer.finish, api.finished);
  assert.deepEqual([...answer.models], [model]);
  assert.ok(answer.ids.size <= 1, `ids ${[...answer.ids]}`);
}

async function assertCalls(scene, primary, spare) {
  assert.deepEqual([await requestsAt(scene.primary), await requestsAt(scene.spare)],
    [primary, spare]);
}

async function rejection(promise) {
  let error;
  await assert.rejects(promise, (raised) => {
    error = raised;
    return true;
  });
  return error;
}

for (const api of APIS) {
  describe(`the ${api.name} client`, () => {
    afterEach(stopAll);

    // The primary fails; the spare's answer is all that the client sees.
    async function assertSpareAnswers(scene, count = 1) {
      for (const stream of [true, false]) {
        for (let index = 0; index < count; index++) {
          assertWhole(api, await ask(api, scene.client, stream), "small");
        }
      }
    }

    it("does not see a 429 with Retry-After", async () => {
      const scene = await startScene(api, { primary: once("rate_limit", "--retry-after", "1") });
      assertWhole(api, await ask(api, scene.client), "small");
      await sleep(1100);
      assertWhole(api, await ask(api, scene.client), "big");
      await assertCalls(scene, 2, 1);
    });

    it("waits out a Retry-After where there is no other target", async () => {
      const scene = await startScene(api, {
        primary: once("rate_limit", "--retry-after", "1"),
        targets: '{ provider = "primary", model = "big" }',
      });
      const answer = await ask(api, scene.client);
      assertWhole(api, answer, "big");
      assert.ok(answer.ms >= 1000 && answer.ms < 5000, `${answer.ms} ms`);
    });

    it("does not see 429 for ever, and the target is asked once in all", async () => {
      const scene = await startScene(api, { primary: always("rate_limit", "--retry-after", "60") });
      await assertSpareAnswers(scene, 3);
      await assertCalls(scene, 1, 6);
    });

    it("raises RateLimitError when all targets say 429", async () => {
      const flags = always("rate_limit", "--retry-after", "60");
      const scene = await startScene(api, { primary: flags, spare: flags });
      const error = await rejection(ask(api, scene.client));
      assert.ok(error instanceof api.RateLimitError, `${error}`);
      assert.equal(error.headers.get("retry-after"), "60");
    });

    it("does not see a 500", async () => {
      const scene = await startScene(api, { primary: once("server_error") });
      assertWhole(api, await ask(api, scene.client), "small");
      assertWhole(api, await ask(api, scene.client), "big");
      await assertCalls(scene, 2, 1);
    });

    it("does not see 503 for ever, and the target is soon left out", async () => {
      const scene = await startScene(api, { primary: always("server_error") });
      await assertSpareAnswers(scene, 5);
      await assertCalls(scene, 5, 10);
    });

    it("does not see a reset before the headers", async () => {
      const scene = await startScene(api, { primary: always("reset_before_headers") });
      await assertSpareAnswers(scene);
      await assertCalls(scene, 2, 2);
    });

    it("does not wait for a target that says nothing", async () => {
      const scene = await startScene(api, { primary: always("hang") });
      const answer = await ask(api, scene.client);
      assertWhole(api, answer, "small");
      assert.ok(answer.ms >= 500 && answer.ms < 5000, `${answer.ms} ms`);
    });

    it("does not wait for a first token that is late", async () => {
      const scene = await startScene(api, {
        primary: always("slow_first_token", "--slow-first-token", "10s"),
      });
      const answer = await ask(api, scene.client);
      assertWhole(api, answer, "small");
      assert.ok(answer.ms >= 300 && answer.ms < 5000, `${answer.ms} ms`);
      await assertCalls(scene, 1, 1);
    });

    it("does not see a context that is too long for the first target, which is asked once",
      async () => {
        const scene = await startScene(api, { primary: always("context_length") });
        assertWhole(api, await ask(api, scene.client), "small");
        await assertCalls(scene, 1, 1);
      });

    it("raises BadRequestError for a content policy's refusal, after one try", async () => {
      const scene = await startScene(api, { primary: always("content_filter") });
      for (const stream of [true, false]) {
        const error = await rejection(ask(api, scene.client, stream));
        assert.ok(error instanceof api.BadRequestError, `${error}`);
        assert.match(error.message, /Output blocked by content filtering policy\./);
      }
      await assertCalls(scene, 2, 0);
    });

    it("does not see an outage of 2 s, and the primary is back 1 s after it", async () => {
      const scene = await startScene(api, {
        health: `health = { consecutive_connection = 3, base_ejection = "300ms",
          max_ejection = "600ms", jitter = 0 }`,
      });
      const OUTAGE_MS = 2000, EVERY_MS = 133, BACK_MS = 1000;
      const served = [];
      const send = async () => served.push({
        at: performance.now(), model: [...(await ask(api, scene.client)).models][0],
      });
      const sendFor = async (ms) => {
        for (const end = performance.now() + ms; performance.now() < end; await sleep(EVERY_MS)) {
          await send();
        }
      };
      await sendFor(3 * EVERY_MS);
      const before = served.length;
      assert.ok(served.every(({ model }) => model === "big"));
      await kill(scene.primary);
      await sendFor(OUTAGE_MS);
      assert.ok(served.slice(before).every(({ model }) => model === "small"));
      const back = await startPrimary("--port", `${scene.primary.port}`);
      const backAt = performance.now();
      await sendFor(1.5 * BACK_MS);
      const first = served.find(({ at, model }) => at > backAt && model === "big");
      assert.ok(first && first.at - backAt <= BACK_MS + EVERY_MS + 500, `${first?.at - backAt} ms`);
      const sinceBack = served.filter(({ at }) => at > backAt).length;
      assert.ok(await requestsAt(back) <= sinceBack);
    });

    it("is told the model that has written the answer", async () => {
      const scene = await startScene(api, { primary: once("server_error") });
      for (const [model, stream] of [["small", true], ["big", true], ["big", false]]) {
        assert.deepEqual([...(await ask(api, scene.client, stream)).models], [model]);
      }
    });

    it("raises an error, and never ends well, when a stream that nobody goes on with is cut",
      async () => {
        const scene = await startScene(api, { primary: always("cut", "--cut-after", "40") });
        const error = await rejection(ask(api, scene.client));
        assert.ok(error instanceof api.APIError, `${error.stack}`);
        assert.match(error.message, /ended early: truncated/);
        assert.equal(error.seen.text.trimEnd(), words(1, 40));
        assert.equal(error.seen.finish, null);
        await assertCalls(scene, 1, 0);
      });

    it("raises an error when the stream falls silent", async () => {
      const scene = await startScene(api, { primary: always("stall", "--stall-after", "20") });
      const error = await rejection(ask(api, scene.client));
      assert.ok(error instanceof api.APIError, `${error.stack}`);
      assert.match(error.message, /ended early: timeout_idle/);
      assert.equal(error.seen.text.trimEnd(), words(1, 20));
    });

    it("raises an error of its own kind for what the gateway itself refuses", async () => {
      const scene = await startScene(api, { route: 'match = { model = "other" },' });
      for (const stream of [true, false]) {
        const error = await rejection(ask(api, scene.client, stream));
        assert.ok(error instanceof api.APIError, `${error}`);
        assert.equal(error.status, 404);
        assert.match(error.message, /The model `any` does not exist/);
        assert.equal(error.type,
          api.name === "anthropic" ? "not_found_error" : "invalid_request_error");
        assert.ok(error.requestID, "the request's id");
      }
    });
  });
}

describe("the openai client's responses", () => {
  const [api] = APIS;
  afterEach(stopAll);

  const stream = async (client, seen) => {
    const events = await client.responses.create({ model: "any", input: words(), stream: true });
    for await (const event of events) {
      seen.push(event);
    }
  };

  it("raise an error when a stream is cut", async () => {
    const scene = await startScene(api, { primary: always("cut", "--cut-after", "40") });
    const seen = [];
    const error = await rejection(stream(scene.client, seen));
    assert.ok(error instanceof api.APIError, `${error.stack}`);
    assert.equal(error.code, "truncated");
    assert.match(error.message, /ended early/);
    assert.ok(!seen.some(({ type }) => type === "response.completed"));
  });

  it("are the next target's when the first one fails", async () => {
    const scene = await startScene(api, { primary: always("slow_first_token") });
    const seen = [];
    await stream(scene.client, seen);
    assert.equal(seen.at(-1).type, "response.completed");
    assert.equal(seen.at(-1).response.model, "small");
    assert.equal(seen.filter(({ type }) => type === "response.output_text.delta").length,
      WORD_COUNT);
  });
});
