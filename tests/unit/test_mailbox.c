/* Several senders, one owner: nothing is lost, doubled or overtaken within one sender. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <semaphore.h>

#include "util/mailbox.h"

#define SENDERS 4
#define LETTERS 20000
#define CHAIN 7

struct letter {
    struct mail mail; /* First, so that a mail is its letter. */
    uint32_t sender;
    uint32_t number;
};

static struct letter letters[SENDERS][LETTERS];

static struct letter *letter_of(struct mail *mail)
{
    return (struct letter *)(void *)mail;
}

static void count_wake(void *context)
{
    int *wakes = context;
    (*wakes)++;
}

static void test_receives_oldest_first_and_wakes_once_per_batch(void **state)
{
    (void)state;
    int wakes = 0;
    struct mailbox box;
    mailbox_init(&box, count_wake, &wakes);
    assert_null(mailbox_receive(&box));
    struct mail mails[3];
    assert_true(mailbox_send(&box, &mails[0]));
    assert_false(mailbox_send(&box, &mails[1]));
    assert_false(mailbox_send(&box, &mails[2]));
    assert_int_equal(wakes, 1);
    assert_ptr_equal(mailbox_receive(&box), &mails[0]);
    assert_ptr_equal(mails[0].next, &mails[1]);
    assert_ptr_equal(mails[1].next, &mails[2]);
    assert_null(mails[2].next);
    assert_null(mailbox_receive(&box));
    assert_true(mailbox_send(&box, &mails[1]));
    assert_int_equal(wakes, 2);
    assert_ptr_equal(mailbox_receive(&box), &mails[1]);
    assert_null(mails[1].next);
}

static void test_a_chain_keeps_its_order_among_others(void **state)
{
    (void)state;
    struct mailbox box;
    mailbox_init(&box, NULL, NULL);
    struct mail mails[5];
    for (size_t i = 1; i < 4; i++) {
        mails[i].next = &mails[i + 1]; /* Also behind the last: the end is where the caller says. */
    }
    assert_true(mailbox_send(&box, &mails[0]));
    assert_false(mailbox_send_chain(&box, &mails[1], &mails[3]));
    assert_false(mailbox_send_chain(&box, &mails[4], &mails[4]));
    struct mail *mail = mailbox_receive(&box);
    for (size_t i = 0; i < 5; i++) {
        assert_ptr_equal(mail, &mails[i]);
        mail = mail->next;
    }
    assert_null(mail);
}

struct post {
    struct mailbox box;
    sem_t awake;
};

struct sender {
    struct post *post;
    uint32_t number;
};

static void wake_post(void *context)
{
    struct post *post = context;
    sem_post(&post->awake);
}

/* Single letters and chains in turn. */
static void *send_all(void *argument)
{
    const struct sender *sender = argument;
    struct letter *mine = letters[sender->number];
    for (uint32_t i = 0; i < LETTERS; i++) {
        mine[i].sender = sender->number;
        mine[i].number = i;
    }
    uint32_t at = 0;
    while (at < LETTERS) {
        if (at % 2 == 0 || at + CHAIN > LETTERS) {
            mailbox_send(&sender->post->box, &mine[at].mail);
            at++;
            continue;
        }
        for (uint32_t i = 0; i + 1 < CHAIN; i++) {
            mine[at + i].mail.next = &mine[at + i + 1].mail;
        }
        mailbox_send_chain(&sender->post->box, &mine[at].mail, &mine[at + CHAIN - 1].mail);
        at += CHAIN;
    }
    return NULL;
}

static void test_many_senders_each_in_order(void **state)
{
    (void)state;
    struct post post;
    assert_int_equal(sem_init(&post.awake, 0, 0), 0);
    mailbox_init(&post.box, wake_post, &post);
    pthread_t threads[SENDERS];
    struct sender senders[SENDERS];
    for (uint32_t i = 0; i < SENDERS; i++) {
        senders[i] = (struct sender){ &post, i };
        assert_int_equal(pthread_create(&threads[i], NULL, send_all, &senders[i]), 0);
    }
    uint32_t expected[SENDERS] = { 0 };
    uint32_t received = 0;
    while (received < SENDERS * LETTERS) {
        /* One wake-up stands for at least one letter: a lost one would hang here. */
        assert_int_equal(sem_wait(&post.awake), 0);
        struct mail *mail = mailbox_receive(&post.box);
        assert_non_null(mail);
        for (; mail != NULL; mail = mail->next) {
            const struct letter *letter = letter_of(mail);
            assert_int_equal(letter->number, expected[letter->sender]);
            expected[letter->sender]++;
            received++;
        }
    }
    for (uint32_t i = 0; i < SENDERS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(expected[i], LETTERS);
    }
    assert_null(mailbox_receive(&post.box));
    sem_destroy(&post.awake);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_receives_oldest_first_and_wakes_once_per_batch),
        cmocka_unit_test(test_a_chain_keeps_its_order_among_others),
        cmocka_unit_test(test_many_senders_each_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
