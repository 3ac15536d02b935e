/*
 * Keys: which of a provider's credentials a try is sent with.
 *
 * Thread: any; it holds nothing, the state of each key is its slot of the health block, shared by
 * all workers. A slot is bound by a salted hash of the key, so a reload that keeps a key keeps its
 * state, and nothing of the key can be read from it.
 *
 * Keys take turns, per worker; those that are out are passed over. A key is out when it was refused
 * (for the provider's ejection time, longer each time), or when it was told to wait; afterwards one
 * try finds out whether it is well again. When all keys are out, so are the provider's targets.
 */
#ifndef PL_KEYS_H
#define PL_KEYS_H

#include "health.h"
#include "target.h"

/** Whether any key may be used; true where there are none. */
bool pl_keys_any_fit(const struct pl_provider *provider, const struct pl_health *health,
                     uint64_t now_ms);
/** When the first key is back; 0: one is fit, or there are none; UINT64_MAX: that is not known.
 *  `out_reason`, if not NULL, gets why that one is out. */
uint64_t pl_keys_until_ms(const struct pl_provider *provider, const struct pl_health *health,
                          uint64_t now_ms, enum pl_health_reason *out_reason);
/** Whether its targets may be tried as far as the provider is concerned: it can be reached, and has
 *  a key. */
bool pl_keys_provider_is_fit(const struct pl_provider *provider, const struct pl_health *health,
                             uint64_t now_ms);
/** The provider's slot as health.h shows it, but open, for the reason of its keys, while all of
 * them are out. Returns whether it is fit. */
bool pl_keys_look_at_provider(const struct pl_provider *provider, const struct pl_health *health,
                              uint64_t now_ms, struct pl_health_view *out);
/** The key whose turn it is: the first fit one from `turn` on, else the one that is back first. Of
 *  a provider that has keys. */
size_t pl_keys_pick(const struct pl_provider *provider, const struct pl_health *health, size_t turn,
                    uint64_t now_ms);
/**
 * Admits a try to a key, in turn, and moves the turn on. False when all are out; `forced` admits to
 * the one that is back first. Without keys true, with a ticket that no slot belongs to.
 */
PL_NODISCARD bool pl_keys_admit(const struct pl_provider *provider, struct pl_health *health,
                                uint32_t *turn, uint64_t now_ms, bool forced,
                                struct pl_health_ticket *ticket, size_t *out_index);
/** The key was refused: out for the provider's ejection time, once for all tries that find this out
 *  together. Returns whether it was in until now. */
bool pl_keys_refuse(const struct pl_provider *provider, struct pl_health *health, size_t index,
                    uint64_t now_ms, double random_unit);
/** "key 1 of 2 (sk-…4f2a)", into `out`. */
void pl_keys_describe(const struct pl_provider *provider, size_t index, char *out, size_t size);

#endif
