import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;
import org.apache.hc.client5.http.classic.methods.HttpPost;
import org.apache.hc.client5.http.entity.UrlEncodedFormEntity;
import org.apache.hc.client5.http.impl.classic.CloseableHttpClient;
import org.apache.hc.client5.http.impl.classic.HttpClients;
import org.apache.hc.core5.http.Header;
import org.apache.hc.core5.http.NameValuePair;
import org.apache.hc.core5.http.io.entity.EntityUtils;
import org.apache.hc.core5.http.message.BasicNameValuePair;

/** Pushes by Apache HttpClient 5. A POST without an entity has no Content-Length. */
public final class HttpClient5 {
    public static void main(String[] args) throws Exception {
        Pushes.run(() -> {
            CloseableHttpClient client = HttpClients.custom().useSystemProperties().build();
            return (url, fields) -> push(client, url, fields);
        });
    }

    private static String push(CloseableHttpClient client, String url, Map<String, String> fields) throws Exception {
        HttpPost post = new HttpPost(url);
        if (fields != null) {
            List<NameValuePair> pairs = fields.entrySet().stream()
                    .map(field -> new BasicNameValuePair(field.getKey(), field.getValue()))
                    .collect(Collectors.toList());
            post.setEntity(new UrlEncodedFormEntity(pairs, StandardCharsets.UTF_8));
        }
        return client.execute(post, response -> {
            EntityUtils.consume(response.getEntity());
            Header id = response.getFirstHeader("X-Push-Id");
            return Pushes.answer(response.getCode(), id == null ? null : id.getValue());
        });
    }
}
