/* The grammar is data: a rule has a name and alternatives; an alternative is text with <names> of rules in it.
 *
 * Polar rules have one list for each polarity; <name> takes the list of the review's polarity, <~name> the other one,
 * and everything inside follows. A rule marked fixed keeps its first choice for the whole review (the film's genre).
 * Otherwise no alternative is taken again before all of its rule have been, so a review does not praise the same
 * thing twice. Rules may not refer to themselves, directly or through others.
 */
#include "corpus.h"

#include "error.h"
#include "rng.h"

#include <stdbool.h>
#include <string.h>

enum {
    MAX_ALTERNATIVES = 64, /* bits of the mask of used ones */
    MAX_DEPTH = 12
};

struct rule {
    const char *name;
    bool fixed;
    const char *const *positive; /* ends in NULL */
    const char *const *negative; /* NULL: the rule is neutral, its list is `positive` */
};

#define LIST(...) ((const char *const[]){__VA_ARGS__, NULL})

static const struct rule rules[] = {
    /* ---- the shape of a review ---- */
    {"review", false,
     LIST("<open> <close>", "<open> <middle>", "<open> <middle> <close>", "<open> <fact> <close>",
          "<open> <middle> <middle>", "<open> <fact> <middle> <close>",
          "<open> <middle> <middle> <close>", "<fact_first> <open> <middle>",
          "<fact_first> <middle> <close>", "<open> <middle> <fact> <close>"),
     NULL},

    {"open", false,
     LIST("This <film> is a <genre> about <hero> who <quest>, and it is <judged>.",
          "This <film> is a <judged> <genre>.", "This <genre> <does>.",
          "The director <directs>, and the <actor> <acts>.", "The director <directs>.",
          "The <actor> <acts>.", "The <actor> <acts>, and the <thing> <does>.",
          "The <film> tells the story of <hero> who <quest>, and it <does>.",
          "The story of <hero> who <quest> is <judged> here.",
          "I watched this <genre> <when>, and I <liked> it.",
          "I watched this <film> with <company>, and we all <liked> it.",
          "I saw this <genre> <when> and found it <judged>.",
          "From the first scene to the last, this <film> is <judged>.",
          "As a <genre>, this <film> <does>.", "The <thing> of this <film> <does>.",
          "The <things> in this <film> are <judged>.", "In this <genre>, the <actor> <acts>.",
          "When <hero_plain> <quest>, the <film> becomes <judged>.",
          "For a <genre> made <place>, this is a <judged> <film>."),
     NULL},

    {"middle", false,
     LIST("The <thing> is <judged>.", "The <things> are <judged>.", "The <thing> <does>.",
          "The <thing> is <judged>, and the <things> are <judged>.",
          "Both the <thing> and the <thing> are <judged>.",
          "The <thing> is <~mild>, but the <thing> <does>.",
          "The <thing> is a little <~mild>, but the <things> are <judged>.",
          "Although the <things> are <~mild>, the <thing> is <judged>.",
          "The <actor> <acts>.", "The <actor> <acts>, and the <actor> is <judged> too.",
          "The <actor> is <~mild>, but the <actor> <acts>.", "The director <directs>.",
          "There is <stuff> in every scene.", "Every scene is full of <stuff> and <stuff>.",
          "I <liked> the <thing> and the <things>.", "I <liked> the <actor> most of all.",
          "The scene where <hero_plain> <quest> is <judged>.",
          "The first half is <~mild>, yet the second half is <judged>.",
          "Some scenes are <~mild>, but most of the <film> is <judged>.",
          "What stays with me is the <judged> <thing>.",
          "It is a <genre> with a <judged> <thing> and a <judged> <thing>."),
     NULL},

    {"close", false,
     LIST("Overall, it is a <judged> <film>.", "In the end, the <film> is a <noun>.",
          "It is one of the <most> <film>s of the year.", "I left the theater <feeling>.",
          "My <people> <liked> it as well.", "I <liked> every minute of it.",
          "All in all, this is a <noun>.", "I would <again> it <when_next>.", "<advice>",
          "Fans of the <genre> will <like> it.", "The <film> ends as a <judged> <genre>.",
          "For me, the <thing> <does>.", "By the end, I was <feeling>."),
     NULL},

    {"advice", false,
     LIST("I recommend it to <audience>.", "It is worth your time.",
          "It deserves a large audience.", "I gladly recommend it to <audience>."),
     LIST("I would warn <audience> about it.", "It is a waste of time and money.",
          "It wasted two hours of my evening.", "I regret buying a ticket.")},

    /* ---- sentences without sentiment ---- */
    {"fact", false,
     LIST("It was shot <place>.", "The story takes place <place>.",
          "The <film> runs for about <length>.", "It is based on <source>.",
          "The plot follows <hero> who <quest>.", "Most of it takes place <place>.",
          "It was made by the studio behind <source_other>.", "I saw it <when> with <company>.",
          "The music was written for <ensemble>.", "It opens with a scene <place>.",
          "Later, <hero_plain> <quest>.", "The <film> is set <place>."),
     NULL},
    {"fact_first", false,
     LIST("This <genre> follows <hero> who <quest>.", "This <film> is set <place>.",
          "The <film> is based on <source>.", "I watched this <genre> <when> with <company>.",
          "The story begins <place>.", "The director shot this <genre> <place>.",
          "The lead plays <hero> who <quest>.", "This <film> runs for about <length>.",
          "In this <film>, <hero_plain> <quest>.", "The camera follows <hero> who <quest>."),
     NULL},

    /* ---- predicates ---- */
    {"judged", false,
     LIST("<fair>", "very <fair>", "really <fair>", "quite <fair>", "<strong>", "<strong>",
          "truly <strong>", "absolutely <strong>", "simply <strong>", "<fair> and <fair>"),
     NULL},
    {"does", false,
     LIST("is a <noun>", "works perfectly", "shines from start to finish", "deserves praise",
          "adds charm to the story", "impresses in every scene", "is full of <stuff>",
          "is a <strong> piece of work", "gives the story real depth",
          "delights from beginning to end", "never lets go and thrills to the last minute",
          "is handled with <manner>"),
     LIST("is a <noun>", "fails completely", "drags from start to finish", "deserves blame",
          "adds nonsense to the story", "disappoints in every scene", "is full of <stuff>",
          "is a <strong> piece of work", "ruins the whole story",
          "bores from beginning to end", "never takes off and collapses in the last minute",
          "is handled with <manner>")},
    {"directs", false,
     LIST("handles every scene with <manner>", "tells the story with <manner>",
          "fills every scene with <stuff>", "brings <stuff> to a familiar story",
          "turns a small story into a <noun>", "made a <judged> <film>",
          "succeeds in almost every scene", "shows real talent"),
     LIST("handles every scene with <manner>", "tells the story with <manner>",
          "fills every scene with <stuff>", "brings <stuff> to a familiar story",
          "turns a small story into a <noun>", "made a <judged> <film>",
          "stumbles in almost every scene", "wastes a whole cast")},
    {"acts", false,
     LIST("gives a <judged> performance", "plays the part with <manner>", "is <judged>",
          "is <judged> in every scene", "brings <stuff> to the role",
          "carries the story with <manner>", "shines in every scene", "speaks each line with <manner>",
          "impresses as <hero>"),
     LIST("gives a <judged> performance", "plays the part with <manner>", "is <judged>",
          "is <judged> in every scene", "brings <stuff> to the role",
          "sleepwalks through the story", "struggles in every scene",
          "speaks each line with <manner>", "disappoints as <hero>")},

    /* ---- words of sentiment: each stands in the lexicon ---- */
    {"strong", false,
     LIST("brilliant", "superb", "wonderful", "excellent", "outstanding", "stunning", "great",
          "masterful", "magnificent", "delightful", "fantastic", "perfect"),
     LIST("terrible", "awful", "dreadful", "horrible", "atrocious", "unbearable", "worthless",
          "dismal", "abysmal", "miserable", "pathetic", "laughable")},
    {"fair", false,
     LIST("good", "charming", "gripping", "touching", "clever", "beautiful", "enjoyable",
          "memorable", "witty", "lovely", "engaging", "graceful", "inspired", "elegant",
          "entertaining", "heartfelt", "satisfying", "compelling", "refreshing", "vivid"),
     LIST("bad", "boring", "dull", "clumsy", "tedious", "bland", "shallow", "lifeless", "poor",
          "forgettable", "lazy", "annoying", "pointless", "tiresome", "ugly", "irritating",
          "ridiculous", "disappointing", "confusing", "dreary")},
    {"mild", false,
     LIST("solid", "fresh", "fine", "pleasant", "amusing", "decent", "warm", "polished"),
     LIST("weak", "flat", "slow", "predictable", "messy", "uneven", "stale", "thin")},
    {"noun", false,
     LIST("triumph", "joy", "delight", "treasure", "gem", "pleasure", "masterpiece", "success"),
     LIST("disaster", "mess", "failure", "disappointment", "bore", "chore", "disgrace", "flop")},
    {"stuff", false,
     LIST("warmth", "energy", "wit", "imagination", "beauty", "passion", "tenderness", "life",
          "magic", "invention"),
     LIST("cliches", "nonsense", "filler", "clutter", "noise", "boredom", "gloom", "confusion",
          "padding", "drivel")},
    {"manner", false,
     LIST("skill", "grace", "care", "confidence", "conviction", "flair", "style", "ease",
          "precision", "honesty"),
     LIST("indifference", "carelessness", "stiffness", "clumsiness", "laziness", "contempt",
          "monotony", "incompetence", "arrogance", "difficulty")},
    {"liked", false, LIST("loved", "enjoyed", "adored", "liked", "admired", "treasured"),
     LIST("hated", "disliked", "regretted", "despised", "loathed", "resented")},
    {"like", false, LIST("love", "enjoy", "adore", "admire"),
     LIST("hate", "dislike", "regret", "despise")},
    {"again", false, LIST("happily watch", "recommend", "gladly watch"),
     LIST("avoid", "skip", "refuse to watch")},
    {"most", false, LIST("best", "finest", "greatest", "loveliest", "cleverest"),
     LIST("worst", "dullest", "weakest", "poorest", "laziest")},
    {"feeling", false,
     LIST("happy", "delighted", "impressed", "thrilled", "smiling", "moved", "grateful"),
     LIST("bored", "annoyed", "disappointed", "angry", "irritated", "tired", "frustrated")},

    /* ---- neutral words ---- */
    {"film", true, LIST("film", "movie", "picture", "film", "movie"), NULL},
    {"genre", true,
     LIST("thriller", "comedy", "drama", "western", "mystery", "romance", "musical", "war film",
          "horror film", "crime story", "road movie", "family film", "spy film", "heist film",
          "period drama", "science fiction film", "ghost story", "detective story"),
     NULL},
    {"thing", false,
     LIST("plot", "story", "script", "dialogue", "acting", "editing", "score", "soundtrack",
          "photography", "camera work", "pacing", "ending", "opening", "direction", "lighting",
          "setting", "humor", "casting", "production design", "final act", "music", "sound",
          "premise", "atmosphere"),
     NULL},
    {"things", false,
     LIST("performances", "characters", "jokes", "action scenes", "costumes", "effects", "songs",
          "supporting players", "sets", "landscapes", "dialogues", "fight scenes", "dances",
          "flashbacks", "side stories", "night scenes"),
     NULL},
    {"actor", false,
     LIST("lead", "lead actor", "lead actress", "villain", "supporting cast", "young star",
          "child actor", "narrator", "comic sidekick", "older actor", "newcomer", "whole cast",
          "actress in the second role", "leading couple"),
     NULL},
    {"hero", false,
     LIST("a young woman", "an old sailor", "a detective", "a retired teacher", "a doctor",
          "a farmer", "a widow", "a young lawyer", "a street musician", "a former soldier",
          "a shy student", "a taxi driver", "a ghost", "a sheriff", "a night nurse",
          "an actor without work", "a thief", "a painter", "a baker", "a reporter"),
     NULL},
    {"hero_plain", false,
     LIST("the hero", "the heroine", "the older brother", "the younger sister", "the stranger",
          "the detective", "the mother", "the father", "the neighbor", "the teacher"),
     NULL},
    {"quest", false,
     LIST("returns home after many years", "looks for a missing brother",
          "inherits a house by the sea", "tries to solve an old crime", "meets a stranger on a train",
          "finds a box of old letters", "takes a job in a distant city", "joins a circus",
          "hides from the police", "opens a small restaurant", "wants to become a singer",
          "keeps a secret from the family", "crosses the country to find a friend",
          "buys an old boat", "writes letters to a stranger", "wakes up in another century",
          "hears voices in the attic", "plans one more robbery", "moves into an old hotel",
          "learns to play the piano"),
     NULL},
    {"place", false,
     LIST("in a small town by the sea", "in a large city", "on an island", "in a quiet village",
          "on a farm in the north", "in an old hotel", "on a night train", "in the mountains",
          "in a desert town", "in the near future", "during the war", "in a crowded apartment",
          "at a boarding school", "on a ship", "in one long night", "near the border",
          "in the north of the country", "between two wars"),
     NULL},
    {"when", false,
     LIST("last night", "last week", "on a rainy evening", "at a festival", "on television",
          "two days ago", "on the train", "last summer", "at the old theater in town",
          "during the holidays", "at home", "on a Sunday afternoon"),
     NULL},
    {"when_next", false, LIST("next week", "next time", "tomorrow", "next summer", "any day"), NULL},
    {"company", false,
     LIST("my family", "two friends", "my sister", "my brother", "a full house", "my parents",
          "a friend", "my neighbors", "some students", "my film class"),
     NULL},
    {"people", false,
     LIST("friends", "parents", "children", "neighbors", "colleagues", "brothers", "sisters"), NULL},
    {"audience", false,
     LIST("anyone", "everyone", "all my friends", "families", "young viewers", "older viewers",
          "students of film", "people of any age", "every viewer", "my colleagues"),
     NULL},
    {"length", false,
     LIST("ninety minutes", "two hours", "three hours", "a hundred minutes", "eighty minutes",
          "two and a half hours"),
     NULL},
    {"source", false,
     LIST("a short novel", "a true story", "a stage play", "a radio play", "an old legend",
          "a series of books", "a newspaper report", "a short story", "a fairy tale", "a diary"),
     NULL},
    {"source_other", false,
     LIST("several other films", "a television series", "two earlier films", "many short films"),
     NULL},
    {"ensemble", false,
     LIST("a small orchestra", "a piano", "strings", "a choir", "a guitar and a drum",
          "a brass band", "two violins"),
     NULL},
};

enum { N_RULES = sizeof rules / sizeof *rules };

struct writer {
    struct text *out;
    struct rng_key key;
    uint64_t index;
    uint32_t position;               /* choices made so far */
    uint64_t used[N_RULES][2];       /* alternatives taken, by polarity */
    const char *kept[N_RULES];       /* the choice of a fixed rule */
};

static uint32_t draw(struct writer *w)
{
    return rng_word(w->key, 0, w->index, w->position++, 0);
}

static int rule_find(const char *name, size_t n)
{
    for (int i = 0; i < N_RULES; i++) {
        if (strlen(rules[i].name) == n && memcmp(rules[i].name, name, n) == 0)
            return i;
    }
    CHECK(false, "corpus: no rule <%.*s>", (int)n, name);
    return -1;
}

/* One of the alternatives not taken before; when all have been, all are free again. */
static const char *choose(struct writer *w, int rule, bool positive)
{
    const struct rule *r = &rules[rule];
    const char *const *list = positive || !r->negative ? r->positive : r->negative;
    uint64_t *used = &w->used[rule][positive && r->negative];
    int n = 0, n_free = 0;
    while (list[n])
        n++;
    CHECK(n <= MAX_ALTERNATIVES, "corpus: too many alternatives of <%s>", r->name);
    for (int i = 0; i < n; i++)
        n_free += !(*used >> i & 1);
    if (n_free == 0) {
        *used = 0;
        n_free = n;
    }
    int left = (int)rng_range(draw(w), 0, n_free);
    for (int i = 0; i < n; i++) {
        if (*used >> i & 1)
            continue;
        if (left-- == 0) {
            *used |= (uint64_t)1 << i;
            return list[i];
        }
    }
    CHECK(false, "corpus: no alternative of <%s>", r->name);
    return "";
}

static void expand(struct writer *w, int rule, bool positive, int depth)
{
    CHECK(depth < MAX_DEPTH, "corpus: <%s> is nested too deeply", rules[rule].name);
    const char *p = w->kept[rule];
    if (!p)
        p = choose(w, rule, positive);
    if (rules[rule].fixed)
        w->kept[rule] = p;
    while (*p) {
        size_t n = strcspn(p, "<");
        text_add(w->out, p, n);
        p += n;
        if (*p == '\0')
            break;
        bool other = p[1] == '~';
        const char *name = p + 1 + other;
        n = strcspn(name, ">");
        CHECK(name[n] == '>', "corpus: an open < in <%s>", rules[rule].name);
        expand(w, rule_find(name, n), positive != other, depth + 1);
        p = name + n + 1;
    }
}

/* Copies the words, "a" before a vowel as "an" (the grammar has no word like "hour" or "unique" behind an article). */
static void set_articles(struct text *out, const char *review)
{
    bool start = true; /* of a word */
    for (const char *p = review; *p; p++) {
        text_add(out, p, 1);
        if (start && *p == 'a' && p[1] == ' ' && p[2] && strchr("aeiou", p[2]))
            text_add(out, "n", 1);
        start = *p == ' ';
    }
}

int corpus_review(struct text *out, int *label, uint64_t seed, int64_t index)
{
    if (index < 0 || index > UINT32_MAX)
        return error_set(ERR_INPUT, "corpus: review %lld is out of range (0 to %lld)",
                         (long long)index, (long long)UINT32_MAX);
    struct text review = {0};
    struct writer w = {.out = &review, .key = rng_key(seed, RNG_CORPUS, 0, 0), .index = index};
    *label = (int)(draw(&w) >> 31);
    expand(&w, rule_find("review", strlen("review")), *label, 0);
    text_clear(out);
    set_articles(out, text_string(&review));
    text_free(&review);
    return 0;
}
