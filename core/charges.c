/*
 * Charges: see charges.h.
 */
#include "charges.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

struct pl_charges {
    pthread_mutex_t lock;
    struct pl_charges_view view; /* under the lock */
    void (*notify)(void *arg);
    void *arg;
};

struct pl_charges *pl_charges_new(void (*notify)(void *arg), void *arg)
{
    struct pl_charges *self = pl_xcalloc(1, sizeof(*self));
    pthread_mutex_init(&self->lock, NULL);
    self->notify = notify;
    self->arg = arg;
    return self;
}

void pl_charges_free(struct pl_charges *self)
{
    if (!self)
        return;
    pthread_mutex_destroy(&self->lock);
    free(self);
}

void pl_charges_add(struct pl_charges *self, enum pl_policy_fault fault, const char *text)
{
    struct pl_charges_view *view = &self->view;
    pthread_mutex_lock(&self->lock);
    bool first = view->new_count++ == 0;
    view->count++;
    view->last_fault = fault;
    view->last_wall_ms = pl_now_wall_ms();
    snprintf(view->last_text, sizeof(view->last_text), "%s", text);
    pthread_mutex_unlock(&self->lock);
    if (first && self->notify)
        self->notify(self->arg);
}

void pl_charges_take(struct pl_charges *self, struct pl_charges_view *out)
{
    pthread_mutex_lock(&self->lock);
    *out = self->view;
    self->view.new_count = 0;
    pthread_mutex_unlock(&self->lock);
}

void pl_charges_look(struct pl_charges *self, struct pl_charges_view *out)
{
    pthread_mutex_lock(&self->lock);
    *out = self->view;
    pthread_mutex_unlock(&self->lock);
}
