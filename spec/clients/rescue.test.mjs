// Streams that break off in the client's hands and go on from another target: what the official
// clients make of them, read event by event and put together by their own helpers. The scenes in
// the times that they take: policies/spec/scenes_rescue_spec.lua.

import assert from "node:assert/strict";
import { afterEach, describe, it } from "node:test";

import { stopAll } from "./processes.mjs";
import { APIS, WORD_COUNT, ask, requestsAt, startScene, words } from "./scenes.mjs";

const always = (type, ...more) =>
  ["--failure-injection-rate", "100", "--failure-types", type, ...more];

const question = { model: "any", max_tokens: 500, messages: [{ role: "user", content: words() }] };

// The whole answer as the client's helper puts it together: text, finish, tokens written.
const helpers = {
  async openai(client) {
    const answer = await client.chat.completions.stream({
      ...question, stream_options: { include_usage: true },
    }).finalChatCompletion();
    const [{ message, finish_reason: finish }] = answer.choices;
    return { text: message.content, finish, written: answer.usage.completion_tokens };
  },
  async anthropic(client) {
    const answer = await client.messages.stream(question).finalMessage();
    assert.equal(answer.content.length, 1);
    return {
      text: answer.content[0].text, finish: answer.stop_reason,
      written: answer.usage.output_tokens,
    };
  },
};

for (const api of APIS) {
  describe(`the ${api.name} client, with rescue,`, () => {
    afterEach(stopAll);

    const start = (primary, spare = [], mode = "continue", more = "") =>
      startScene(api, { primary, spare, route: `rescue = "${mode}", ${more}` });

    // All words once and in order, one id, one proper end; by the helper, too.
    async function assertWhole(scene, primary, spare) {
      const answer = await ask(api, scene.client);
      assert.equal(answer.text, words());
      assert.equal(answer.finish, api.finished);
      assert.equal(answer.ids.size, 1);
      const whole = await helpers[api.name](scene.client);
      assert.equal(whole.text, words());
      assert.equal(whole.finish, api.finished);
      assert.deepEqual([await requestsAt(scene.primary), await requestsAt(scene.spare)],
        [primary, spare]);
      return whole;
    }

    for (const mode of ["continue", "restart"]) {
      it(`does not see a cut after 40 of ${WORD_COUNT} words (${mode})`, async () => {
        const scene = await start(always("cut", "--cut-after", "40"), [], mode);
        const whole = await assertWhole(scene, 2, 2);
        assert.ok(whole.written >= WORD_COUNT, `${whole.written} tokens`);
      });

      it(`does not see a silence after 20 words (${mode})`, async () => {
        await assertWhole(await start(always("stall", "--stall-after", "20"), [], mode), 2, 2);
      });
    }

    it("does not see a tenth event that is invalid JSON", async () => {
      const after = `${9 - api.leadEvents}`;
      const scene = await start(always("garbage", "--garbage-after", after), [], "continue",
        'malformed_events = "drop",');
      await assertWhole(scene, 2, 0);
    });

    it("does not miss the mark at the end of a stream that lacks it", async () => {
      await assertWhole(await start(always("no_done")), 2, 0);
    });

    it("does not see a cut when the next target refuses a prefix", async () => {
      const scene = await start(always("cut", "--cut-after", "40"), ["--refuse-prefix"]);
      await assertWhole(scene, 2, 4);
    });

    it("raises an error when nobody goes on", async () => {
      const scene = await startScene(api, {
        primary: always("cut", "--cut-after", "40"), spare: always("server_error"),
        route: 'rescue = { mode = "continue", attempts = 1 },',
      });
      await assert.rejects(ask(api, scene.client), (error) => {
        assert.ok(error instanceof api.APIError, `${error.stack}`);
        assert.equal(error.seen.text.trimEnd(), words(1, 40));
        assert.equal(error.seen.finish, null);
        return true;
      });
    });
  });
}
